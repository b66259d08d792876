#include "server/iscsi/negotiate.h"

#include <stdio.h>
#include <string.h>

enum key_type { NUMBER, BOOL, LIST, WORD, NOTE, OLD, OTHER };
enum key_sender { INITIATOR, TARGET, BOTH };
enum key_use { IO, LO, FFPO, ALL };
enum key_stage { SECURITY, OPERATIONAL, EITHER };
enum key_combine { MIN, MAX, OR, AND, FIRST, DECLARE };
enum key_irrelevant { NEVER, DISCOVERY };

static const struct key_row {
    const char *name;
    enum key_type type;
    enum key_sender sender;
    enum key_use use;
    enum key_stage stage;
    enum key_combine combine;
    uint32_t fallback, low, high, ours;
    enum key_irrelevant irrelevant;
    const char *options;
} rows[KEY_COUNT] = {
#define KEY(symbol, name, type, sender, use, stage, combine, fallback, low, high,      \
        ours, irrelevant, options, section)                                            \
    { name, type, sender, use, stage, combine, fallback, low, high, ours, irrelevant,  \
        options },
#include "server/iscsi/keys.tbl.h"
#undef KEY
};

void negotiation_start(struct negotiation *negotiation)
{
    memset(negotiation, 0, sizeof *negotiation);
    for (int i = 0; i < KEY_COUNT; i++)
        negotiation->keys[i].agreed = rows[i].fallback;
}

enum login_key negotiation_key(const struct text_pair *pair)
{
    for (int i = 0; i < KEY_COUNT; i++)
        if (text_is(pair, rows[i].name))
            return (enum login_key)i;
    return KEY_UNKNOWN;
}

const char *negotiation_key_name(enum login_key key)
{
    return rows[key].name;
}

/** The words that answer an offer, RFC 7143 6.2; none is ever an offer by itself. */
static bool is_answer(const char *value)
{
    return strcmp(value, "NotUnderstood") == 0 || strcmp(value, "Irrelevant") == 0 ||
            strcmp(value, "Reject") == 0;
}

static bool is_option(
        const char *options, const char *member, size_t length, uint32_t *index)
{
    const char *option;
    size_t size;

    for (unsigned i = 0; text_member(options, i, &option, &size); i++)
        if (size == length && memcmp(option, member, size) == 0) {
            *index = i;
            return true;
        }
    return false;
}

/** The first of their list that is an option of ours: the order is theirs. */
static bool list_choose(
        const struct key_row *row, const char *value, struct negotiation_value *key)
{
    const char *member;
    size_t length;

    for (unsigned i = 0; text_member(value, i, &member, &length); i++)
        if (is_option(row->options, member, length, &key->theirs)) {
            key->agreed = key->theirs;
            return true;
        }
    return false;
}

static bool value_read(const struct key_row *row, const char *value, uint32_t *number)
{
    if (row->type == BOOL)
        return is_option("No,Yes", value, strlen(value), number);
    return text_number(value, number) && *number >= row->low && *number <= row->high;
}

static uint32_t value_combine(const struct key_row *row, uint32_t theirs)
{
    switch (row->combine) {
    case MIN:
        return theirs < row->ours ? theirs : row->ours;
    case MAX:
        return theirs > row->ours ? theirs : row->ours;
    case OR:
        return theirs | row->ours;
    case AND:
        return theirs & row->ours;
    case FIRST:
    case DECLARE:
        break;
    }
    return theirs;
}

/** A value that is none is rejected and the key stays as it was, RFC 7143 6.2; a declaration
    cannot be answered, and what it would set must not be guessed. */
static enum negotiation_verdict value_offer(
        const struct key_row *row, struct negotiation_value *key, const char *value)
{
    uint32_t theirs;

    if (row->type == LIST)
        return list_choose(row, value, key) ? NEGOTIATION_VALUE : NEGOTIATION_REJECT;
    if (!value_read(row, value, &theirs))
        return row->combine == DECLARE ? NEGOTIATION_VIOLATION : NEGOTIATION_REJECT;
    key->theirs = theirs;
    key->agreed = value_combine(row, theirs);
    return row->combine == DECLARE ? NEGOTIATION_SILENCE : NEGOTIATION_VALUE;
}

/** Whether a key may be said now: by whom, in which phase, in which stage. */
static enum negotiation_verdict place_judge(
        const struct key_row *row, enum negotiation_stage stage, const char *value)
{
    if (row->sender == TARGET) /* an answer to what we declared is harmless */
        return is_answer(value) ? NEGOTIATION_SILENCE : NEGOTIATION_VIOLATION;
    if (is_answer(value)) /* to an offer that we never made */
        return NEGOTIATION_VIOLATION;
    if (stage == NEGOTIATION_FULL_FEATURE)
        return row->use == FFPO || row->use == ALL ? NEGOTIATION_VALUE
                                                   : NEGOTIATION_REJECT;
    if (row->use == FFPO)
        return NEGOTIATION_REJECT;
    if (row->stage == SECURITY && stage != NEGOTIATION_SECURITY)
        return NEGOTIATION_VIOLATION;
    if (row->stage == OPERATIONAL && stage != NEGOTIATION_OPERATIONAL)
        return NEGOTIATION_VIOLATION;
    return NEGOTIATION_VALUE;
}

enum negotiation_verdict negotiation_offer(struct negotiation *negotiation,
        enum negotiation_stage stage, const struct text_pair *pair)
{
    enum login_key index = negotiation_key(pair);
    enum negotiation_verdict place;
    const struct key_row *row;
    struct negotiation_value *key;

    if (index == KEY_UNKNOWN)
        return NEGOTIATION_NOT_UNDERSTOOD;
    row = &rows[index];
    key = &negotiation->keys[index];
    if ((place = place_judge(row, stage, pair->value)) != NEGOTIATION_VALUE)
        return place;
    if (key->said)
        return NEGOTIATION_VIOLATION;
    key->said = true;
    switch (row->type) {
    case WORD:
        return NEGOTIATION_WORD;
    case NOTE:
        return NEGOTIATION_SILENCE;
    case OLD:
        return NEGOTIATION_REJECT;
    case OTHER:
        return NEGOTIATION_VIOLATION;
    case NUMBER:
    case BOOL:
    case LIST:
        break;
    }
    if (row->irrelevant == DISCOVERY && negotiation->discovery)
        return NEGOTIATION_IRRELEVANT;
    return value_offer(row, key, pair->value);
}

bool negotiation_settle(struct negotiation *negotiation)
{
    struct negotiation_value *first = &negotiation->keys[KEY_FIRST_BURST];
    uint32_t most = negotiation->keys[KEY_MAX_BURST].agreed;

    if (first->agreed <= most)
        return true;
    if (first->answered) /* RFC 7143 13.14: it MUST NOT exceed MaxBurstLength */
        return false;
    first->agreed = most;
    return true;
}

/** RFC 7143 13.14: without unsolicited and without immediate data there is no first burst. */
static bool has_no_first_burst(const struct negotiation *negotiation)
{
    return negotiation->keys[KEY_INITIAL_R2T].agreed &&
            !negotiation->keys[KEY_IMMEDIATE_DATA].agreed;
}

static void value_write(
        const struct key_row *row, uint32_t agreed, struct text_writer *writer)
{
    const char *options = row->type == BOOL ? "No,Yes" : row->options, *option;
    char value[32];
    size_t length;

    if (row->type == NUMBER) {
        text_write_number(writer, row->name, agreed);
        return;
    }
    if (!text_member(options, agreed, &option, &length) || length >= sizeof value)
        return;
    memcpy(value, option, length);
    value[length] = 0;
    text_write_key(writer, row->name, value);
}

void negotiation_answer(struct negotiation *negotiation, const struct text_pair *pair,
        enum negotiation_verdict verdict, struct text_writer *writer)
{
    enum login_key index = negotiation_key(pair);

    if (verdict == NEGOTIATION_VALUE && index == KEY_FIRST_BURST &&
            has_no_first_burst(negotiation))
        verdict = NEGOTIATION_IRRELEVANT;
    switch (verdict) {
    case NEGOTIATION_VALUE:
        negotiation->keys[index].answered = true;
        value_write(&rows[index], negotiation->keys[index].agreed, writer);
        break;
    case NEGOTIATION_REJECT:
        text_write(writer, pair->key, pair->key_length, "Reject");
        break;
    case NEGOTIATION_IRRELEVANT:
        text_write(writer, pair->key, pair->key_length, "Irrelevant");
        break;
    case NEGOTIATION_NOT_UNDERSTOOD:
        text_write(writer, pair->key, pair->key_length, "NotUnderstood");
        break;
    case NEGOTIATION_SILENCE:
    case NEGOTIATION_WORD:
    case NEGOTIATION_VIOLATION:
        break;
    }
}

void negotiation_declare(struct text_writer *writer)
{
    const struct key_row *row = &rows[KEY_MAX_RECEIVE];

    text_write_number(writer, row->name, row->ours);
}

void negotiation_terms(
        const struct negotiation *negotiation, bool declared, struct login_terms *terms)
{
    const struct negotiation_value *keys = negotiation->keys;
    const struct key_row *receive = &rows[KEY_MAX_RECEIVE];

    *terms = (struct login_terms){
        .header_digest = keys[KEY_HEADER_DIGEST].agreed,
        .data_digest = keys[KEY_DATA_DIGEST].agreed,
        .initial_r2t = keys[KEY_INITIAL_R2T].agreed,
        .immediate_data = keys[KEY_IMMEDIATE_DATA].agreed,
        .send_max = keys[KEY_MAX_RECEIVE].agreed,
        .receive_max = declared ? receive->ours : receive->fallback,
        .max_burst = keys[KEY_MAX_BURST].agreed,
        .first_burst = keys[KEY_FIRST_BURST].agreed,
        .max_outstanding_r2t = (uint16_t)keys[KEY_MAX_R2T].agreed,
        .time2wait = (uint16_t)keys[KEY_TIME2WAIT].agreed,
        .time2retain = (uint16_t)keys[KEY_TIME2RETAIN].agreed,
        .data_pdu_in_order = keys[KEY_PDU_IN_ORDER].agreed,
        .data_sequence_in_order = keys[KEY_SEQUENCE_IN_ORDER].agreed,
        .error_recovery_level = (uint8_t)keys[KEY_RECOVERY_LEVEL].agreed,
    };
}
