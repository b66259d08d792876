/* server/iscsi/negotiate.h - keys of RFC 7143 as rows: ours, theirs, agreed.
 *
 * A text is negotiated in two steps, for keys that depend on each other stand in any order:
 * every pair is offered, then all is settled, then every pair is answered. Pure, any thread.
 */
#ifndef SERVER_ISCSI_NEGOTIATE_H
#define SERVER_ISCSI_NEGOTIATE_H

#include <stdbool.h>
#include <stdint.h>

#include "server/iscsi/login.h"
#include "server/iscsi/text.h"

enum login_key {
    KEY_UNKNOWN = -1,
#define KEY(symbol, ...) KEY_##symbol,
#include "server/iscsi/keys.tbl.h"
#undef KEY
    KEY_COUNT
};

enum negotiation_stage {
    NEGOTIATION_SECURITY,
    NEGOTIATION_OPERATIONAL,
    NEGOTIATION_FULL_FEATURE
};

/** One of the two sides' values each; a bool is 0 or 1, a list's the index of its option. */
struct negotiation {
    bool discovery;
    struct negotiation_value {
        bool said, answered;
        uint32_t theirs, agreed;
    } keys[KEY_COUNT];
};

enum negotiation_verdict {
    NEGOTIATION_SILENCE, /* declared: nothing to answer */
    NEGOTIATION_WORD, /* the caller's to understand and to answer */
    NEGOTIATION_VALUE, /* answered with what is agreed */
    NEGOTIATION_REJECT,
    NEGOTIATION_IRRELEVANT,
    NEGOTIATION_NOT_UNDERSTOOD,
    NEGOTIATION_VIOLATION /* the peer broke the protocol: the login ends */
};

/** Every key at its default. */
void negotiation_start(struct negotiation *negotiation);

enum login_key negotiation_key(const struct text_pair *pair);
const char *negotiation_key_name(enum login_key key);

/** What the initiator says in @pair. @negotiation->discovery is known by then, or nothing that
    depends on it is said in the same text (SessionType comes first, see login.c). */
enum negotiation_verdict negotiation_offer(struct negotiation *negotiation,
        enum negotiation_stage stage, const struct text_pair *pair);

/** After the last pair of a text. False: what they say now contradicts what was agreed. */
bool negotiation_settle(struct negotiation *negotiation);

/** Appends what answers @pair, on which negotiation_offer() said @verdict, if anything. */
void negotiation_answer(struct negotiation *negotiation, const struct text_pair *pair,
        enum negotiation_verdict verdict, struct text_writer *writer);

/** Our MaxRecvDataSegmentLength, once: a declaration, which needs no answer. */
void negotiation_declare(struct text_writer *writer);

/** What holds; @declared: negotiation_declare() was sent. */
void negotiation_terms(const struct negotiation *negotiation, bool declared,
        struct login_terms *terms);

#endif
