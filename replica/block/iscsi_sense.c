#include "replica/block/iscsi_sense.h"

#include <errno.h>
#include <stdio.h>

enum { ANY = 0x100, CHECK_CONDITION = 0x02 };

struct status_row {
    uint8_t code;
    const char *name;
    enum sense_action read, write;
    int error;
};

struct sense_row {
    uint16_t key, asc, ascq;
    enum sense_action read, write;
    int error;
    const char *words;
};

static const struct status_row statuses[] = {
#define STATUS(code, name, read, write, error) { code, name, read, write, error },
#include "replica/block/iscsi_sense.tbl.h"
#undef STATUS
};

static const struct sense_row senses[] = {
#define SENSE(key, asc, ascq, read, write, error, words)                               \
    { key, asc, ascq, read, write, error, words },
#include "replica/block/iscsi_sense.tbl.h"
#undef SENSE
};

static const char *const keys[16] = { "NO SENSE", "RECOVERED ERROR", "NOT READY",
    "MEDIUM ERROR", "HARDWARE ERROR", "ILLEGAL REQUEST", "UNIT ATTENTION",
    "DATA PROTECT", "BLANK CHECK", "VENDOR SPECIFIC", "COPY ABORTED", "ABORTED COMMAND",
    "RESERVED", "VOLUME OVERFLOW", "MISCOMPARE", "COMPLETED" };

struct sense sense_parse(const uint8_t *bytes, unsigned length)
{
    struct sense sense = { 0 };
    uint8_t code = length ? bytes[0] & 0x7f : 0;

    if ((code == 0x70 || code == 0x71) && length >= 18)
        sense = (struct sense){ true, bytes[2] & 0x0f, bytes[12], bytes[13] };
    else if ((code == 0x72 || code == 0x73) && length >= 8)
        sense = (struct sense){ true, bytes[1] & 0x0f, bytes[2], bytes[3] };
    return sense;
}

static const struct status_row *status_find(uint8_t code)
{
    for (unsigned i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
        if (statuses[i].code == code)
            return &statuses[i];
    return NULL;
}

static bool fits(uint16_t pattern, uint8_t value)
{
    return pattern == ANY || pattern == value;
}

/** The last row fits everything. */
static const struct sense_row *sense_find(const struct sense *sense)
{
    const struct sense_row *row = senses;

    while (!fits(row->key, sense->key) || !fits(row->asc, sense->asc) ||
            !fits(row->ascq, sense->ascq))
        row++;
    return row;
}

struct sense_decision sense_decide(const struct scsi_answer *answer, bool write)
{
    const struct status_row *status;
    const struct sense_row *row;
    struct sense sense;

    if (answer->status != CHECK_CONDITION) {
        status = status_find(answer->status);
        if (!status)
            return (struct sense_decision){ SENSE_FAIL, EREMOTEIO };
        return (struct sense_decision){ write ? status->write : status->read,
            status->error };
    }
    sense = sense_parse(answer->sense, answer->sense_length);
    if (!sense.valid)
        return (struct sense_decision){ SENSE_FAIL, EREMOTEIO };
    row = sense_find(&sense);
    return (struct sense_decision){ write ? row->write : row->read, row->error };
}

void sense_words(const struct scsi_answer *answer, char *text, size_t size)
{
    const struct status_row *status;
    struct sense sense;

    if (answer->lost) {
        snprintf(text, size, "the session was lost");
    } else if (answer->status != CHECK_CONDITION) {
        status = status_find(answer->status);
        if (status)
            snprintf(text, size, "%s", status->name);
        else
            snprintf(text, size, "SCSI status %02Xh", answer->status);
    } else {
        sense = sense_parse(answer->sense, answer->sense_length);
        if (sense.valid)
            snprintf(text, size, "%s %02X/%02X/%02X, %s", keys[sense.key], sense.key,
                    sense.asc, sense.ascq, sense_find(&sense)->words);
        else
            snprintf(text, size, "CHECK CONDITION with %u bytes of sense",
                    answer->sense_length);
    }
}
