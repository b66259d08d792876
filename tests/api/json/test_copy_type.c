/* CopyType: all 65,536 values and what is none, through a real body and both methods. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "api/json/body.h"

struct call {
    int64_t copy_type;
    bool copy_type_given;
};

static const struct body_member members[] = {
    { .name = "CopyType",
            .type = BODY_CIM,
            .need = BODY_REQUIRED,
            .offset = offsetof(struct call, copy_type),
            .given = offsetof(struct call, copy_type_given),
            .map = CIM_COPY_TYPE },
};

static int decode(const char *value, struct call *call, struct body_problems *problems)
{
    char body[128];
    int length = snprintf(body, sizeof body, "{\"CopyType\":%s}", value);

    memset(call, 0, sizeof *call);
    return body_decode(body, (size_t)length, members, 1, call, problems);
}

/* From the methods' own pages. */
static enum cim_copy_type_class expected(bool attach, unsigned value)
{
    if (value < 2)
        return CIM_COPY_TYPE_INVALID;
    if (value <= 5)
        return CIM_COPY_TYPE_KNOWN;
    return value < (attach ? 4096u : 32768u) ? CIM_COPY_TYPE_RESERVED
                                             : CIM_COPY_TYPE_VENDOR;
}

Test(copy_type, every_uint16_by_both_methods)
{
    unsigned differ = 0;

    for (unsigned value = 0; value < 65536; value++) {
        struct body_problems problems;
        struct call call;
        char text[8];
        enum cim_copy_type_class create, attach;
        (void)snprintf(text, sizeof text, "%u", value);
        cr_assert(decode(text, &call, &problems) == 0, "%u", value);
        cr_assert(
                call.copy_type_given && call.copy_type == (int64_t)value, "%u", value);
        create = cim_copy_type_classify(CIM_CREATE_REPLICA, call.copy_type);
        attach = cim_copy_type_classify(CIM_ATTACH_OR_MODIFY_REPLICA, call.copy_type);
        cr_assert(create == expected(false, value), "CreateReplica, %u", value);
        cr_assert(attach == expected(true, value), "AttachOrModifyReplica, %u", value);
        differ += create != attach;
    }
    cr_assert(differ == 32768 - 4096, "%u", differ);
}

Test(copy_type, names)
{
    static const char *const names[] = { "\"Async\"", "\"Sync\"", "\"UnSyncAssoc\"",
        "\"UnSyncUnAssoc\"" };

    for (int i = 0; i < 4; i++) {
        struct body_problems problems;
        struct call call;
        cr_assert(decode(names[i], &call, &problems) == 0);
        cr_assert(call.copy_type == i + 2);
    }
}

Test(copy_type, what_is_no_uint16_is_a_wrong_member)
{
    static const char *const wrong[] = { "-1", "65536", "65537", "4.0", "4.5", "4e0",
        "-0.0", "\"4\"", "\"\"", "\"async\"", "\"ASYNC\"", "\"UnsyncAssoc\"",
        "\"Frozen\"", "null", "true", "false", "[]", "[4]", "{}", "{\"CopyType\":4}",
        "4294967298", "18446744073709551618", "9223372036854775807",
        "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "1e999",
        "-1e999", "99999999999999999999999999999999999999999999" };

    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct body_problems problems;
        struct call call;
        cr_assert(decode(wrong[i], &call, &problems) == -EINVAL, "%s", wrong[i]);
        cr_assert(problems.count == 1 && !problems.list[0].unsupported, "%s", wrong[i]);
        cr_assert(strcmp(problems.list[0].pointer, "/CopyType") == 0, "%s", wrong[i]);
        cr_assert(!call.copy_type_given, "%s", wrong[i]);
    }
}

Test(copy_type, what_is_no_json_never_reached_the_method)
{
    static const char *const wrong[] = { "", "04", "+4", "0x4", "4.", ".4", "4,", "NaN",
        "Infinity", "4 4", "4e", "1.e999", "01e999", "099999999999999999999", "'4'",
        "4/**/" };

    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct body_problems problems;
        struct call call;
        cr_assert(decode(wrong[i], &call, &problems) == -EBADMSG, "%s", wrong[i]);
        cr_assert(problems.count == 1, "%s", wrong[i]);
    }
}

Test(copy_type, left_out)
{
    struct body_problems problems;
    struct call call = { 0 };

    cr_assert(body_decode("{}", 2, members, 1, &call, &problems) == -EINVAL);
    cr_assert(problems.count == 1);
    cr_assert(strcmp(problems.list[0].pointer, "/CopyType") == 0);
}
