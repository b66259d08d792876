/* Bodies: what decodes, and a table of those that must not, each with its answer. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/json/body.h"

#define ID "0193a5b0-7c3e-7000-8000-00000000000a"
#define UPPER "0193A5B0-7C3E-7000-8000-00000000000A"

struct call {
    char name[17];
    uint64_t size, offset;
    bool remote;
    int64_t operation;
    char source[37];
    char pool[9];
    struct goal goal;
    struct body_texts initiators;
    bool name_given, size_given, offset_given, remote_given, operation_given,
            source_given, pool_given, goal_given, initiators_given;
};

#define MEMBER(text, kind, field)                                                      \
    .name = text, .type = kind, .offset = offsetof(struct call, field),                \
    .given = offsetof(struct call, field##_given)

static const struct body_member members[] = {
    { MEMBER("ElementName", BODY_TEXT, name), .min = 1, .max = 16 },
    { MEMBER("Size", BODY_NUMBER, size), .min = 1, .max = INT64_MAX },
    { MEMBER("Offset", BODY_NUMBER, offset), .max = 4096 },
    { MEMBER("Remote", BODY_FLAG, remote) },
    { MEMBER("Operation", BODY_CIM, operation), .map = CIM_OPERATION },
    { MEMBER("SourceElement", BODY_REFERENCE, source), .need = BODY_REQUIRED,
            .collection = "elements" },
    { MEMBER("TargetPool", BODY_NAMED, pool), .max = 8, .collection = "pools" },
    { MEMBER("Goal", BODY_GOAL, goal) },
    { MEMBER("Initiators", BODY_TEXTS, initiators), .min = 1, .max = 3 },
};
enum { MEMBERS = sizeof members / sizeof members[0] };

static struct call call;
static struct body_problems problems;

static int decode(const char *bytes, size_t length)
{
    memset(&call, 0, sizeof call);
    memset(&problems, 0x5a, sizeof problems);
    return body_decode(bytes, length, members, MEMBERS, &call, &problems);
}

static int decode_text(const char *text)
{
    return decode(text, strlen(text));
}

Test(body, all_members)
{
    cr_assert(decode_text(
                      "{\"ElementName\":\"copy \\u00e9\",\"Size\":9223372036854775807,"
                      "\"Offset\":0,\"Remote\":true,\"Operation\":13,"
                      "\"SourceElement\":\"/elements/" UPPER "\","
                      "\"TargetPool\":\"/pools/default\","
                      "\"Goal\":{\"ReplicationPriority\":4},"
                      "\"Initiators\":[\"iqn.a\",\"*\"]}") == 0);
    cr_assert(problems.count == 0);
    cr_assert(strcmp(call.name, "copy \xc3\xa9") == 0 && call.name_given);
    cr_assert(call.size == 9223372036854775807u && call.size_given);
    cr_assert(call.offset == 0 && call.offset_given);
    cr_assert(call.remote && call.remote_given);
    cr_assert(call.operation == 13 && call.operation_given);
    cr_assert(strcmp(call.source, ID) == 0 && call.source_given);
    cr_assert(strcmp(call.pool, "default") == 0 && call.pool_given);
    cr_assert(call.goal.replication_priority == 4 && call.goal_given);
    cr_assert(call.initiators.count == 2 && strcmp(call.initiators.text[1], "*") == 0);
}

Test(body, what_is_absent_or_null_is_not_given)
{
    cr_assert(
            decode_text(" {\"SourceElement\":\"" ID "\",\"Size\":null,\"Goal\":null,"
                        "\"ElementName\":null,\"TargetPool\":null,\"Initiators\":null,"
                        "\"Remote\":null,\"Operation\":null}\r\n") == 0);
    cr_assert(call.source_given && strcmp(call.source, ID) == 0);
    cr_assert(!call.size_given && !call.goal_given && !call.name_given &&
            !call.pool_given);
    cr_assert(!call.initiators_given && !call.remote_given && !call.operation_given);
    cr_assert(call.goal.desired_rpo == 300, "a goal has its defaults");
}

Test(body, names_instead_of_numbers_and_bare_references)
{
    cr_assert(decode_text("{\"SourceElement\":\"" ID "\",\"Operation\":\"Start Copy\","
                          "\"TargetPool\":\"p\"}") == 0);
    cr_assert(call.operation == 12);
    cr_assert(strcmp(call.pool, "p") == 0);
}

Test(body, a_goal_as_json_text_and_as_mof_text)
{
    cr_assert(decode_text("{\"SourceElement\":\"" ID
                          "\",\"Goal\":\"{\\\"DesiredRPO\\\":60}\"}") == 0);
    cr_assert(call.goal.desired_rpo == 60 && call.goal_given);
    cr_assert(decode_text("{\"SourceElement\":\"" ID "\",\"Goal\":\"instance of "
                          "CIM_StorageSetting { ReplicationPriority = 4; };\"}") == 0);
    cr_assert(call.goal.replication_priority == 4);
}

Test(body, an_empty_body_where_nothing_is_required)
{
    cr_assert(body_decode("", 0, members, 5, &call, &problems) == 0);
    cr_assert(body_decode(NULL, 0, members, 5, &call, &problems) == 0);
    cr_assert(decode("", 0) == -EBADMSG && problems.count == 1);
}

/* -- what must not decode ------------------------------------------------------------ */

struct bad {
    const char *text;
    const char *pointer;
};

/* Wrong members: -EINVAL. The text stands inside {"SourceElement":...,  }. */
static const struct bad wrong_members[] = {
    { "\"ElementName\":\"\"", "/ElementName" },
    { "\"ElementName\":\"12345678901234567\"", "/ElementName" },
    { "\"ElementName\":\"123456789012345\\u00e9\"", "/ElementName" },
    { "\"ElementName\":7", "/ElementName" },
    { "\"ElementName\":true", "/ElementName" },
    { "\"ElementName\":[\"a\"]", "/ElementName" },
    { "\"ElementName\":{\"a\":1}", "/ElementName" },
    { "\"ElementName\":\"a\\u0000b\\u0001\"", NULL },
    { "\"ElementName\":\"a\\nb\"", "/ElementName" },
    { "\"ElementName\":\"a\\u001b[31m\"", "/ElementName" },
    { "\"ElementName\":\"a\\u007f\"", "/ElementName" },
    { "\"ElementName\":\"a\\u0085\"", "/ElementName" },
    { "\"ElementName\":\"a\\u009f\"", "/ElementName" },
    { "\"Size\":0", "/Size" },
    { "\"Size\":-1", "/Size" },
    { "\"Size\":1.0", "/Size" },
    { "\"Size\":1e3", "/Size" },
    { "\"Size\":\"1\"", "/Size" },
    { "\"Size\":true", "/Size" },
    { "\"Size\":[1]", "/Size" },
    { "\"Size\":9223372036854775808", "/Size" },
    { "\"Size\":18446744073709551615", "/Size" },
    { "\"Size\":18446744073709551616", "/Size" },
    { "\"Size\":-9223372036854775809", "/Size" },
    { "\"Size\":1e400", "/Size" },
    { "\"Size\":-1e400", "/Size" },
    { "\"Offset\":4097", "/Offset" },
    { "\"Offset\":-0.0", "/Offset" },
    { "\"Remote\":1", "/Remote" },
    { "\"Remote\":0", "/Remote" },
    { "\"Remote\":\"true\"", "/Remote" },
    { "\"Remote\":[]", "/Remote" },
    { "\"Operation\":\"4\"", "/Operation" },
    { "\"Operation\":\"detach\"", "/Operation" },
    { "\"Operation\":\"Resync Replica\"", "/Operation" },
    { "\"Operation\":\"Frozen\"", "/Operation" },
    { "\"Operation\":-1", "/Operation" },
    { "\"Operation\":65536", "/Operation" },
    { "\"Operation\":2.0", "/Operation" },
    { "\"Operation\":[2]", "/Operation" },
    { "\"TargetPool\":\"\"", "/TargetPool" },
    { "\"TargetPool\":\"/pools/\"", "/TargetPool" },
    { "\"TargetPool\":\"/pools\"", "/TargetPool" },
    { "\"TargetPool\":\"/pool/a\"", "/TargetPool" },
    { "\"TargetPool\":\"/pools/a/b\"", "/TargetPool" },
    { "\"TargetPool\":\"a/b\"", "/TargetPool" },
    { "\"TargetPool\":\"/\"", "/TargetPool" },
    { "\"TargetPool\":\"123456789\"", "/TargetPool" },
    { "\"TargetPool\":\"a\\tb\"", "/TargetPool" },
    { "\"TargetPool\":1", "/TargetPool" },
    { "\"Goal\":1", "/Goal" },
    { "\"Goal\":[]", "/Goal" },
    { "\"Goal\":true", "/Goal" },
    { "\"Goal\":\"\"", "/Goal" },
    { "\"Goal\":\"{\"", "/Goal" },
    { "\"Goal\":\"[]\"", "/Goal" },
    { "\"Goal\":\"{} x\"", "/Goal" },
    { "\"Goal\":\"null\"", "/Goal" },
    { "\"Goal\":\"{\\\"Verify\\\":true,\\\"Verify\\\":true}\"", "/Goal" },
    { "\"Goal\":\"{\\\"Verify\\\":\\\"yes\\\"}\"", "/Goal/Verify" },
    { "\"Goal\":{\"verify\":true}", "/Goal/verify" },
    { "\"Goal\":{\"Verify\":1}", "/Goal/Verify" },
    { "\"Goal\":{\"Unheard/Of~\":1}", "/Goal/Unheard~1Of~0" },
    { "\"Goal\":{\"ReplicationPriority\":5}", "/Goal/ReplicationPriority" },
    { "\"Goal\":{\"DesiredRPO\":99999999999999999999}", "/Goal/DesiredRPO" },
    { "\"Initiators\":[]", "/Initiators" },
    { "\"Initiators\":[\"a\",\"b\",\"c\",\"d\"]", "/Initiators" },
    { "\"Initiators\":\"a\"", "/Initiators" },
    { "\"Initiators\":{\"0\":\"a\"}", "/Initiators" },
    { "\"Initiators\":[1]", "/Initiators/0" },
    { "\"Initiators\":[\"a\",\"\"]", "/Initiators/1" },
    { "\"Initiators\":[\"a\",null]", "/Initiators/1" },
    { "\"Initiators\":[\"a\",\"b\",\"c\\n\"]", "/Initiators/2" },
    { "\"Initiators\":[[\"a\"]]", "/Initiators/0" },
    { "\"elementName\":\"a\"", "/elementName" },
    { "\"elementname\":null", "/elementname" },
    { "\"\":1", "/" },
    { "\"Id\":\"" ID "\"", "/Id" },
    { "\"SyncState\":14", "/SyncState" },
    { "\"a/b~c\":1", "/a~1b~0c" },
    { "\"__proto__\":{}", "/__proto__" },
    { "\"ReplicaPipe\":null", "/ReplicaPipe" },
};

Test(body, wrong_members)
{
    for (size_t i = 0; i < sizeof wrong_members / sizeof wrong_members[0]; i++) {
        const struct bad *bad = &wrong_members[i];
        char text[400];
        int result;
        (void)snprintf(
                text, sizeof text, "{\"SourceElement\":\"" ID "\",%s}", bad->text);
        result = decode_text(text);
        cr_expect(
                result == (bad->pointer ? -EINVAL : -EBADMSG), "%s: %d", text, result);
        cr_expect(problems.count == 1, "%s: %u problems", text, problems.count);
        cr_expect(!bad->pointer || strcmp(problems.list[0].pointer, bad->pointer) == 0,
                "%s: at %s", text, problems.list[0].pointer);
        cr_expect(problems.list[0].detail[0] && !problems.list[0].unsupported);
    }
}

static const char *const wrong_references[] = { "1", "true", "[]", "{}", "\"\"",
    "\"/\"", "\"elements/" ID "\"", "\"/elements\"", "\"/elements/\"",
    "\"/elements//" ID "\"", "\"/jobs/" ID "\"", "\"/elements/" ID "/\"",
    "\"/elements/" ID "/export\"", "\"/elements/" ID " \"", "\" " ID "\"",
    "\"/Elements/" ID "\"", "\"http://127.0.0.1/elements/" ID "\"",
    "\"0193a5b0-7c3e-7000-8000-00000000000\"",
    "\"0193a5b0-7c3e-7000-8000-00000000000g\"",
    "\"0193a5b07c3e70008000000000000000000a\"", "\"{" ID "}\"",
    "\"/elements/../elements/" ID "\"", "\"/elements/%30\"" };

Test(body, wrong_references)
{
    for (size_t i = 0; i < sizeof wrong_references / sizeof wrong_references[0]; i++) {
        char text[200];
        (void)snprintf(
                text, sizeof text, "{\"SourceElement\":%s}", wrong_references[i]);
        cr_expect(decode_text(text) == -EINVAL, "%s", text);
        cr_expect(problems.count == 1, "%s", text);
        cr_expect(strcmp(problems.list[0].pointer, "/SourceElement") == 0, "%s", text);
    }
    cr_assert(decode_text("{}") == -EINVAL);
    cr_assert(strcmp(problems.list[0].pointer, "/SourceElement") == 0);
    cr_assert(
            decode_text("{\"SourceElement\":null}") == -EINVAL && problems.count == 1);
}

/* No JSON object: -EBADMSG, the call never reached the method. */
static const char *const malformed[] = { " ", "\n", "null", "true", "4", "\"text\"",
    "[]", "[{}]", "{", "}", "{}}", "{} {}", "{}x", "{},", "{,}", "{\"A\"}", "{\"A\":}",
    "{\"A\":1,}", "{\"A\" 1}", "{A:1}", "{'A':1}", "{\"A\":'b'}", "{\"A\":1 \"B\":2}",
    "{\"A\":[1,]}", "{\"A\":[1 2]}", "{\"A\":[}", "{\"A\":]}", "{\"A\":tru}",
    "{\"A\":True}", "{\"A\":nul}", "{\"A\":undefined}", "{\"A\":NaN}", "{\"A\":-}",
    "{\"A\":01}", "{\"A\":1.}", "{\"A\":.5}", "{\"A\":1e}", "{\"A\":0x10}",
    "{\"A\":+1}", "{\"A\":1e+}", "{\"A\":--1}", "{\"A\":\"}", "{\"A\":\"\\\"}",
    "{\"A\":\"\\x\"}", "{\"A\":\"\\u12\"}", "{\"A\":\"\\u12g4\"}",
    "{\"A\":\"\\ud800\"}", "{\"A\":\"\\udc00\"}", "{\"A\":\"\\ud800\\u0041\"}",
    "{\"A\":\"\\u0000\"}", "{\"\\u0000\":1}", "{\"A\":\"\n\"}", "{\"A\":\"\t\"}",
    "{\"A\":\"\x01\"}", "{\"A\":1}//", "/**/{\"A\":1}", "{\"A\":1/**/}", "#{}",
    "\xef\xbb\xbf{}", "{\"A\":1,\"A\":2}", "{\"A\":1,\"A\":1}",
    "{\"A\":1,\"\\u0041\":2}", "{\"A\":null,\"A\":null}",
    "{\"Goal\":{\"B\":1,\"B\":2}}", "{\"A\":[{\"B\":1,\"B\":2}]}", "{\"A\":\"\xff\"}",
    "{\"A\":\"\xc0\x80\"}", "{\"A\":\"\xc1\xbf\"}", "{\"A\":\"\xe0\x80\x80\"}",
    "{\"A\":\"\xed\xa0\x80\"}", "{\"A\":\"\xf0\x80\x80\x80\"}",
    "{\"A\":\"\xf4\x90\x80\x80\"}", "{\"A\":\"\xf5\x80\x80\x80\"}", "{\"A\":\"\xc3\"}",
    "{\"A\":\"\xe2\x82\"}", "{\"A\":\"\x80\"}", "{\"\xff\":1}", "{}\xff", "\xff{}",
    "{\"A\":99999999999999999999x}", "{\"A\":1e999 1}", "{\"A\":099999999999999999999}",
    "{\"A\":9.9.9e999}", "{\"A\":1e400e1}", "{\"A\":-e999}",
    "{\"A\":99999999999999999999", "{99999999999999999999:1}",
    "{99999999999999999999 :1}", "{\"A\":1,1e999\n:1}" };

Test(body, malformed)
{
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        int result = decode_text(malformed[i]);
        char *canonical = body_canonical(malformed[i], strlen(malformed[i]));
        cr_expect(result == -EBADMSG, "%s: %d", malformed[i], result);
        cr_expect(
                problems.count == 1 && problems.list[0].detail[0], "%s", malformed[i]);
        cr_expect(canonical == NULL, "%s: %s", malformed[i], canonical);
        free(canonical);
    }
}

Test(body, nul_bytes_end_nothing)
{
    static const char inside[] = "{\"A\":1}\0{}", before[] = "\0{}",
                      key[] = "{\"A\0\":1}";

    cr_assert(decode(inside, sizeof inside - 1) == -EBADMSG);
    cr_assert(strstr(problems.list[0].detail, "NUL at byte 7"), "%s",
            problems.list[0].detail);
    cr_assert(decode(before, sizeof before - 1) == -EBADMSG);
    cr_assert(decode(key, sizeof key - 1) == -EBADMSG);
    cr_assert(decode("{}\0", 3) == -EBADMSG);
}

/* A body of @depth levels of @open and @close below the object. */
static char *nested(const char *open, const char *close, unsigned depth)
{
    char *text = calloc(1, 64 + depth * (strlen(open) + strlen(close)));

    strcpy(text, "{\"A\":");
    for (unsigned i = 1; i < depth; i++)
        strcat(text, open);
    strcat(text, "0");
    for (unsigned i = 1; i < depth; i++)
        strcat(text, close);
    return strcat(text, "}");
}

Test(body, sixteen_levels_and_no_more)
{
    static const char *const pairs[][2] = { { "[", "]" }, { "{\"A\":", "}" } };

    for (int i = 0; i < 2; i++)
        for (unsigned depth = 1; depth < 40; depth++) {
            char *text = nested(pairs[i][0], pairs[i][1], depth);
            int result = decode_text(text);
            cr_expect(result == (depth <= 16 ? -EINVAL : -EBADMSG), "%u: %s", depth,
                    text);
            free(text);
        }
}

Test(body, a_flood_of_brackets_is_refused_before_it_is_parsed)
{
    char *text = malloc(65536);

    memset(text, '[', 65536);
    cr_assert(decode(text, 65536) == -EBADMSG);
    memset(text, '{', 65536);
    cr_assert(decode(text, 65536) == -EBADMSG);
    memset(text, ']', 65536);
    cr_assert(decode(text, 65536) == -EBADMSG);
    memset(text, '9', 65536);
    cr_assert(decode(text, 65536) == -EBADMSG);
    memset(text, '"', 65536);
    cr_assert(decode(text, 65536) == -EBADMSG);
    free(text);
}

Test(body, brackets_in_strings_are_no_nesting)
{
    cr_assert(decode_text("{\"SourceElement\":\"" ID
                          "\",\"ElementName\":\"[[[[[[[[[[[[[[[[\","
                          "\"TargetPool\":\"\\\"[\\\\{\"}") == 0);
    cr_assert(strcmp(call.pool, "\"[\\{") == 0);
}

Test(body, every_problem_is_told_up_to_sixteen)
{
    char text[1200] = "{";

    cr_assert(decode_text("{\"Size\":-1,\"Remote\":0,\"Nope\":1}") == -EINVAL);
    cr_assert(problems.count == 4, "%u", problems.count);
    for (char c = 'a'; c <= 'z'; c++) {
        char member[16];
        (void)snprintf(member, sizeof member, "\"%c\":1,", c);
        strcat(text, member);
    }
    strcat(text, "\"A\":1}");
    cr_assert(decode_text(text) == -EINVAL);
    cr_assert(problems.count == BODY_PROBLEMS_MAX);
}

Test(body, a_long_unknown_name_is_cut_at_a_whole_character)
{
    char text[4096] = "{\"";
    size_t length;

    for (int i = 0; i < 1000; i++)
        strcat(text, "\xc3\xa9");
    strcat(text, "\":1}");
    cr_assert(decode_text(text) == -EINVAL);
    length = strlen(problems.list[1].pointer);
    cr_assert(length == 125, "%zu", length);
    cr_assert((unsigned char)problems.list[1].pointer[length - 1] == 0xa9);
}

Test(body, problems_are_cut_at_a_whole_character)
{
    struct body_problems told = { 0 };
    char text[1001] = "";

    for (int i = 0; i < 500; i++)
        strcat(text, "\xc3\xa9");
    body_problem_add(&told, true, text, "%s", text);
    cr_assert(told.count == 1 && told.list[0].unsupported);
    cr_assert(strlen(told.list[0].pointer) == 126);
    cr_assert(strlen(told.list[0].detail) == 198);
}

/* -- settings: the members that no row names are properties -------------------------- */

struct setting {
    char name[17];
    struct goal goal;
    bool name_given, goal_given;
};

static const struct body_member setting_members[] = {
    { .name = "ElementName",
            .type = BODY_TEXT,
            .max = 16,
            .offset = offsetof(struct setting, name),
            .given = offsetof(struct setting, name_given) },
    { .type = BODY_PROPERTIES,
            .offset = offsetof(struct setting, goal),
            .given = offsetof(struct setting, goal_given) },
};

static int decode_setting(const char *text, struct setting *setting)
{
    memset(setting, 0, sizeof *setting);
    return body_decode(text, strlen(text), setting_members, 2, setting, &problems);
}

Test(body, a_setting_is_a_name_and_properties)
{
    struct setting setting;

    cr_assert(
            decode_setting("{\"ElementName\":\"s\",\"DesiredRPO\":10}", &setting) == 0);
    cr_assert(
            setting.name_given && setting.goal_given && setting.goal.desired_rpo == 10);
    cr_assert(decode_setting("{}", &setting) == 0);
    cr_assert(!setting.goal_given && setting.goal.desired_rpo == 300);
    cr_assert(decode_setting("{\"DesiredRPO\":9}", &setting) == -EINVAL);
    cr_assert(strcmp(problems.list[0].pointer, "/DesiredRPO") == 0);
    cr_assert(decode_setting("{\"Nope\":9}", &setting) == -EINVAL);
    cr_assert(!problems.list[0].unsupported);
    cr_assert(decode_setting("{\"ReadOnly\":2}", &setting) == -EINVAL);
    cr_assert(problems.list[0].unsupported);
}

/* -- one spelling --------------------------------------------------------------------- */

static void canonical_is(const char *text, const char *want)
{
    char *have = body_canonical(text, strlen(text));

    cr_expect(have && strcmp(have, want) == 0, "%s -> %s, not %s", text, have, want);
    free(have);
}

Test(canonical, sorted_and_compact)
{
    canonical_is("", "{}");
    canonical_is(" { } ", "{}");
    canonical_is("{\"b\":1 ,\"a\":{\"d\":[2,1],\"c\":null}}",
            "{\"a\":{\"c\":null,\"d\":[2,1]},\"b\":1}");
    canonical_is("{\"A\":\"\\u00e9\\/\"}", "{\"A\":\"\\u00E9/\"}");
    canonical_is("{\"A\":\"\xc3\xa9/\"}", "{\"A\":\"\\u00E9/\"}");
    canonical_is("{\"A\":4.0}", "{\"A\":4.0}");
    canonical_is("{\"A\":-0}", "{\"A\":0}");
}

Test(canonical, numbers_too_large_keep_their_digits)
{
    canonical_is("{\"A\":99999999999999999999}", "{\"A\":\"99999999999999999999\"}");
    canonical_is("{\"A\":[-9223372036854775809,9223372036854775807]}",
            "{\"A\":[\"-9223372036854775809\",9223372036854775807]}");
    canonical_is("{\"A\":1e999}", "{\"A\":\"1e999\"}");
    canonical_is(
            "{\"A\":\"99999999999999999999\"}", "{\"A\":\"99999999999999999999\"}");
    canonical_is("{\"A\":1e-999}", "{\"A\":0.0}");
}

static void patched(const char *text, const char *patch, const char *want)
{
    char *have = body_patch(text, patch, strlen(patch));

    cr_expect((have == NULL) == (want == NULL) && (!want || strcmp(have, want) == 0),
            "%s + %s = %s, not %s", text, patch, have, want);
    free(have);
}

Test(canonical, patches_as_rfc_7396_has_them)
{
    patched("{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}");
    patched("{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}");
    patched("{\"a\":\"b\"}", "{\"a\":null}", "{}");
    patched("{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}");
    patched("{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}");
    patched("{\"a\":\"c\"}", "{\"a\":[\"b\"]}", "{\"a\":[\"b\"]}");
    patched("{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}",
            "{\"a\":{\"b\":\"d\"}}");
    patched("{\"e\":null}", "{\"a\":1}", "{\"a\":1,\"e\":null}");
    patched("{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}");
    patched("{\"a\":1}", "{}", "{\"a\":1}");
    patched("{\"a\":1}", "[]", NULL);
    patched("{\"a\":1}", "", NULL);
    patched("[]", "{}", NULL);
    patched("{\"a\":1}", "{\"a\":1,\"a\":2}", NULL);
}

Test(reference, both_forms)
{
    char id[37] = "";

    cr_assert(body_reference("/jobs/" UPPER, "jobs", id) && strcmp(id, ID) == 0);
    cr_assert(body_reference(UPPER, "jobs", id) && strcmp(id, ID) == 0);
    cr_assert(!body_reference("/jobsx/" ID, "jobs", id));
    cr_assert(!body_reference("/job/" ID, "jobs", id));
    cr_assert(!body_reference("", "jobs", id));
    cr_assert(!body_reference("/", "jobs", id));
}
