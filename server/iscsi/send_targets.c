/* Text in full feature phase: RFC 7143 appendix C, and what may be declared again. */
#include <string.h>

#include "server/iscsi/login.h"
#include "server/iscsi/negotiate.h"
#include "server/iscsi/text.h"

/** All is a discovery session's question, nothing at all a normal one's; a name is both's. */
static void targets_answer(const char *value, enum login_session session,
        const char *own_target, struct login_list *list, struct text_writer *writer)
{
    if (strcmp(value, "All") == 0 && session == LOGIN_DISCOVERY)
        list->wanted = true;
    else if (!value[0] && session == LOGIN_NORMAL)
        list->wanted = text_name(own_target, list->name);
    else if (text_name(value, list->name))
        list->wanted =
                session == LOGIN_DISCOVERY || strcmp(list->name, own_target) == 0;
    else
        text_write_key(writer, "SendTargets", "Reject");
}

int login_text(const uint8_t *data, size_t length, enum login_session session,
        const char *own_target, struct login_terms *terms, struct login_list *list,
        uint8_t *answer, size_t room)
{
    struct text_pair pairs[TEXT_PAIRS_MAX];
    struct text_writer writer = { .at = answer, .room = room };
    struct negotiation negotiation;
    int count = text_read(data, length, pairs);

    *list = (struct login_list){ 0 };
    if (count < 0)
        return -1;
    negotiation_start(&negotiation);
    for (int i = 0; i < count; i++) {
        enum negotiation_verdict verdict =
                negotiation_offer(&negotiation, NEGOTIATION_FULL_FEATURE, &pairs[i]);

        if (verdict == NEGOTIATION_VIOLATION)
            return -1;
        if (verdict == NEGOTIATION_WORD) /* of these only SendTargets comes this far */
            targets_answer(pairs[i].value, session, own_target, list, &writer);
        negotiation_answer(&negotiation, &pairs[i], verdict, &writer);
    }
    if (writer.overflow)
        return -1;
    if (negotiation.keys[KEY_MAX_RECEIVE].said)
        terms->send_max = negotiation.keys[KEY_MAX_RECEIVE].agreed;
    return (int)writer.length;
}
