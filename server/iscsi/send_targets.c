/* Text in full feature phase: RFC 7143 appendix C, and what may be declared again. */
#include <string.h>

#include "server/iscsi/login.h"
#include "server/iscsi/negotiate.h"
#include "server/iscsi/text.h"

/** Writes those whose name is @wanted ("" all). One target's portals come one after another:
    its name is written once, before them. */
static void targets_write(login_target_f *each, void *context, const char *wanted,
        struct text_writer *writer)
{
    char name[SCSI_NAME_MAX] = "", last[SCSI_NAME_MAX] = "", portal[64] = "";

    for (unsigned i = 0; !writer->overflow && each(context, i, name, portal); i++) {
        if (wanted[0] && strcmp(wanted, name) != 0)
            continue;
        if (i == 0 || strcmp(last, name) != 0)
            text_write_key(writer, "TargetName", name);
        text_write_key(writer, "TargetAddress", portal);
        memcpy(last, name, sizeof last);
    }
}

/** All is a discovery session's question, nothing at all a normal one's; a name is both's. */
static void targets_answer(const char *value, enum login_session session,
        const char *own_target, login_target_f *each, void *context,
        struct text_writer *writer)
{
    char wanted[TEXT_NAME_MAX + 1] = "";

    if (strcmp(value, "All") == 0 && session == LOGIN_DISCOVERY)
        targets_write(each, context, "", writer);
    else if (!value[0] && session == LOGIN_NORMAL)
        targets_write(each, context, own_target, writer);
    else if (text_name(value, wanted) &&
            (session == LOGIN_DISCOVERY || strcmp(wanted, own_target) == 0))
        targets_write(each, context, wanted, writer);
    else if (!wanted[0])
        text_write_key(writer, "SendTargets", "Reject");
}

int login_text(const uint8_t *data, size_t length, enum login_session session,
        const char *own_target, struct login_terms *terms, login_target_f *each,
        void *context, uint8_t *answer, size_t room)
{
    struct text_pair pairs[TEXT_PAIRS_MAX];
    struct text_writer writer = { .at = answer, .room = room };
    struct negotiation negotiation;
    int count = text_read(data, length, pairs);

    if (count < 0)
        return -1;
    negotiation_start(&negotiation);
    for (int i = 0; i < count; i++) {
        enum negotiation_verdict verdict =
                negotiation_offer(&negotiation, NEGOTIATION_FULL_FEATURE, &pairs[i]);

        if (verdict == NEGOTIATION_VIOLATION)
            return -1;
        if (verdict == NEGOTIATION_WORD) /* of these only SendTargets comes this far */
            targets_answer(pairs[i].value, session, own_target, each, context, &writer);
        negotiation_answer(&negotiation, &pairs[i], verdict, &writer);
    }
    if (writer.overflow)
        return -1;
    if (negotiation.keys[KEY_MAX_RECEIVE].said)
        terms->send_max = negotiation.keys[KEY_MAX_RECEIVE].agreed;
    return (int)writer.length;
}
