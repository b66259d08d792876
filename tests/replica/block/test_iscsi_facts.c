/* Judging answers and reading parameter data: pure, from bytes, short and odd ones included. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "replica/block/iscsi_facts.h"
#include "replica/block/iscsi_sense.h"
#include "tests/support/seed.h"

static struct scsi_answer check_condition(uint8_t key, uint8_t asc, uint8_t ascq)
{
    struct scsi_answer answer = { .status = 2, .sense_length = 18 };

    answer.sense[0] = 0x70;
    answer.sense[2] = key;
    answer.sense[12] = asc;
    answer.sense[13] = ascq;
    return answer;
}

/* The table of reliability.md section 4, written from the page and not from the code. */
static const struct {
    uint8_t status, key, asc, ascq;
    enum sense_action read, write;
    int error;
} expected[] = {
    { 0x00, 0, 0, 0, SENSE_OK, SENSE_OK, 0 },
    { 0x08, 0, 0, 0, SENSE_BACK_OFF, SENSE_BACK_OFF, ETIMEDOUT },
    { 0x28, 0, 0, 0, SENSE_BACK_OFF, SENSE_BACK_OFF, ETIMEDOUT },
    { 0x18, 0, 0, 0, SENSE_FAIL, SENSE_FAIL, EBADE },
    { 0x40, 0, 0, 0, SENSE_RETRY_ONCE, SENSE_GIVE_UP, EIO },
    { 0x77, 0, 0, 0, SENSE_FAIL, SENSE_FAIL, EREMOTEIO },
    { 0x04, 0, 0, 0, SENSE_FAIL, SENSE_FAIL, EREMOTEIO },
    { 2, 6, 0x2f, 0, SENSE_RETRY_ONCE, SENSE_GIVE_UP, EIO },
    { 2, 6, 0x29, 0, SENSE_RETRY_RESET, SENSE_RETRY_RESET, EIO },
    { 2, 6, 0x29, 7, SENSE_RETRY_RESET, SENSE_RETRY_RESET, EIO },
    { 2, 6, 0x2a, 0x09, SENSE_LOOK_RETRY, SENSE_LOOK_RETRY, ESTALE },
    { 2, 6, 0x3f, 0x0e, SENSE_LOOK_RETRY, SENSE_LOOK_RETRY, ESTALE },
    { 2, 6, 0x3f, 0x03, SENSE_LOOK_RETRY, SENSE_LOOK_RETRY, ESTALE },
    { 2, 6, 0x2a, 0x01, SENSE_RETRY_ONCE, SENSE_RETRY_ONCE, EREMOTEIO },
    { 2, 6, 0x38, 0x07, SENSE_RETRY_ONCE, SENSE_RETRY_ONCE, EREMOTEIO },
    { 2, 2, 0x04, 0x01, SENSE_BACK_OFF, SENSE_BACK_OFF, ETIMEDOUT },
    { 2, 2, 0x04, 0x0a, SENSE_BACK_OFF, SENSE_BACK_OFF, ETIMEDOUT },
    { 2, 2, 0x04, 0x03, SENSE_FAIL, SENSE_FAIL, EIO },
    { 2, 2, 0x3a, 0x00, SENSE_FAIL, SENSE_FAIL, EIO },
    { 2, 3, 0x11, 0x00, SENSE_FAIL, SENSE_FAIL, EIO },
    { 2, 3, 0x0c, 0x00, SENSE_FAIL, SENSE_FAIL, EIO },
    { 2, 4, 0x44, 0x00, SENSE_FAIL, SENSE_FAIL, EIO },
    { 2, 5, 0x21, 0x00, SENSE_LOOK_FAIL, SENSE_LOOK_FAIL, EREMOTEIO },
    { 2, 5, 0x25, 0x00, SENSE_LOOK_FAIL, SENSE_LOOK_FAIL, EREMOTEIO },
    { 2, 5, 0x20, 0x00, SENSE_FAIL, SENSE_FAIL, EOPNOTSUPP },
    { 2, 5, 0x24, 0x00, SENSE_FAIL, SENSE_FAIL, EREMOTEIO },
    { 2, 7, 0x27, 0x07, SENSE_FAIL, SENSE_FAIL, ENOSPC },
    { 2, 7, 0x27, 0x00, SENSE_FAIL, SENSE_FAIL, EROFS },
    { 2, 0xb, 0x47, 0x03, SENSE_RETRY_THRICE, SENSE_RETRY_THRICE, EIO },
    { 2, 0xe, 0x1d, 0x00, SENSE_FAIL, SENSE_FAIL, EREMOTEIO },
    { 2, 0x0, 0x00, 0x00, SENSE_FAIL, SENSE_FAIL, EREMOTEIO },
};

Test(sense, the_decision_table)
{
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        struct scsi_answer answer = { .status = expected[i].status };
        struct sense_decision read, write;
        if (answer.status == 2)
            answer =
                    check_condition(expected[i].key, expected[i].asc, expected[i].ascq);
        read = sense_decide(&answer, false);
        write = sense_decide(&answer, true);
        cr_assert(read.action == expected[i].read, "row %zu, read", i);
        cr_assert(write.action == expected[i].write, "row %zu, write", i);
        cr_assert(read.error == expected[i].error, "row %zu, error %d", i, read.error);
    }
}

Test(sense, every_answer_has_a_decision_and_words)
{
    for (unsigned key = 0; key < 16; key++)
        for (unsigned code = 0; code < 65536; code++) {
            struct scsi_answer answer =
                    check_condition((uint8_t)key, (uint8_t)(code >> 8), (uint8_t)code);
            struct sense_decision decision = sense_decide(&answer, code & 1);
            cr_assert(decision.action == SENSE_OK || decision.error > 0);
            cr_assert(decision.action != SENSE_OK ||
                    key == 1); /* recovered: data is there */
        }
    for (unsigned status = 0; status < 256; status++) {
        struct scsi_answer answer = { .status = (uint8_t)status };
        char words[64] = "";
        sense_words(&answer, words, sizeof(words));
        cr_assert(words[0]);
        cr_assert((sense_decide(&answer, true).action == SENSE_OK) == (status == 0));
    }
}

Test(sense, short_sense_is_none)
{
    for (unsigned length = 0; length < 18; length++) {
        uint8_t *bytes = malloc(length + !length); /* an over-read is ASan's */
        struct sense sense;
        memset(bytes, 0, length + !length);
        bytes[0] = 0x70;
        sense = sense_parse(bytes, length);
        cr_assert(!sense.valid, "%u bytes", length);
        bytes[0] = 0x72;
        sense = sense_parse(bytes, length);
        cr_assert(sense.valid == (length >= 8), "%u bytes", length);
        free(bytes);
    }
}

Test(sense, words_name_key_code_and_meaning)
{
    struct scsi_answer answer = check_condition(3, 0x11, 0x04);
    char words[80];

    sense_words(&answer, words, sizeof(words));
    cr_assert_str_eq(words, "MEDIUM ERROR 03/11/04, unrecovered read error");
    sense_words(&answer, words, 10);
    cr_assert_str_eq(words, "MEDIUM ER");
    answer.sense_length = 1;
    sense_words(&answer, words, sizeof(words));
    cr_assert_str_eq(words, "CHECK CONDITION with 1 bytes of sense");
}

/* -- facts ---------------------------------------------------------------------------- */

static const uint8_t vpd83[] = {
    0,
    0x83,
    0,
    0x38,
    0x01,
    0x13,
    0,
    8,
    0x50,
    1,
    2,
    3,
    4,
    5,
    6,
    7, /* of the port: not it */
    0x01,
    0x02,
    0,
    8,
    9,
    9,
    9,
    9,
    9,
    9,
    9,
    9, /* EUI-64 */
    0x01,
    0x03,
    0,
    8,
    0x51,
    1,
    1,
    1,
    1,
    1,
    1,
    1, /* NAA 5 */
    0x02,
    0x01,
    0,
    12,
    'V',
    'E',
    'N',
    'D',
    'O',
    'R',
    ' ',
    ' ',
    'd',
    'i',
    's',
    'k',
};

Test(facts, the_best_name_of_the_unit_is_taken)
{
    struct lun_facts facts = { 0 };
    struct block_identity identity;

    facts_vpd83(&facts, vpd83, sizeof(vpd83));
    cr_assert_str_eq(facts.world, "naa.5101010101010101");
    cr_assert_str_eq(facts.t10, "VENDOR  disk");
    facts_identity(&facts, &identity);
    cr_assert_str_eq(identity.world, "naa.5101010101010101");
    cr_assert_str_eq(identity.weak, "t10.VENDOR  disk,");
    strcpy(facts.vendor, "IET");
    facts_identity(&facts, &identity);
    cr_assert_str_eq(identity.world, "", "tgt's own numbers are unique to nobody");
    cr_assert(identity.weak[0]);
}

Test(facts, capacity_and_limits)
{
    uint8_t capacity[32] = { 0, 0, 0, 0, 0, 0, 0x0f, 0xff, 0, 0, 2, 0, 0, 0, 0xc0 };
    uint8_t limits[64] = { 0, 0xb0, 0, 0x3c, [10] = 1, [22] = 2, [27] = 3, [42] = 4 };
    uint8_t thin[8] = { 0, 0xb2, 0, 4, 0, 0xc0 };
    struct lun_facts facts = { 0 };

    cr_assert(!facts_capacity(&facts, capacity, 11));
    cr_assert(facts_capacity(&facts, capacity, 32));
    cr_assert(facts.blocks == 4096 && facts.block_size == 512);
    cr_assert(facts.thin && facts.reads_zeros);
    facts_vpdb0(&facts, limits, sizeof(limits));
    cr_assert(facts.max_transfer == 256 && facts.max_unmap == 512);
    cr_assert(facts.max_unmap_ranges == 3 && facts.max_write_same == 1024);
    facts_vpdb2(&facts, thin, sizeof(thin));
    cr_assert(facts.can_unmap && facts.can_write_same_unmap);
    memset(capacity, 0xff, 8);
    cr_assert(facts_capacity(&facts, capacity, 32) && facts.blocks == 0);
}

/* How much room it has may change; what a block is, and who it is, may not. */
Test(facts, of_another_unit)
{
    static const struct lun_facts unit = { .block_size = 512,
        .blocks = 8,
        .vendor = "v",
        .world = "w",
        .t10 = "t",
        .serial = "s" };
    struct lun_facts other = unit;

    other.blocks = 9;
    cr_assert(facts_same_unit(&other, &unit));
#define DIFFERS(field, value)                                                          \
    do {                                                                               \
        other = unit;                                                                  \
        other.field = value;                                                           \
        cr_assert(!facts_same_unit(&other, &unit), #field);                            \
    } while (0)
    DIFFERS(block_size, 4096);
    DIFFERS(qualifier, 1);
    DIFFERS(type, 5);
    DIFFERS(vendor[0], 'x');
    DIFFERS(world[0], 'x');
    DIFFERS(t10[0], 'x');
    DIFFERS(serial[0], 'x');
#undef DIFFERS
}

Test(facts, mode_and_reservation)
{
    uint8_t mode[24] = { 23, 0, 0x90, 0, 0x08, 0x12, 0x04 };
    uint8_t reservation[24] = { [7] = 16 };
    struct lun_facts facts = { .volatile_cache = true };

    facts_mode(&facts, mode, sizeof(mode));
    cr_assert(facts.write_protected && facts.fua && facts.volatile_cache);
    mode[6] = 0;
    mode[2] = 0;
    facts_mode(&facts, mode, sizeof(mode));
    cr_assert(!facts.write_protected && !facts.fua && !facts.volatile_cache);
    facts_reservation(&facts, reservation, 7);
    cr_assert(!facts.reserved);
    facts_reservation(&facts, reservation, 24);
    cr_assert(facts.reserved);
}

struct run {
    uint64_t lba;
    uint32_t count;
    uint8_t kind;
};

static unsigned status_make(uint8_t *bytes, const struct run *runs, unsigned count)
{
    unsigned size = 8 + 16 * count, said = size - 4;

    memset(bytes, 0, size);
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(said >> (24 - 8 * i));
    for (unsigned n = 0; n < count; n++) {
        uint8_t *p = bytes + 8 + 16 * n;
        for (int i = 0; i < 8; i++)
            p[i] = (uint8_t)(runs[n].lba >> (56 - 8 * i));
        for (int i = 0; i < 4; i++)
            p[8 + i] = (uint8_t)(runs[n].count >> (24 - 8 * i));
        p[12] = runs[n].kind;
    }
    return size;
}

Test(facts, extents_only_deallocated_and_lbprz_is_zero)
{
    static const struct run runs[] = { { 0, 10, 0 }, { 10, 5, 1 }, { 15, 5, 2 },
        { 20, 4, 1 }, { 24, 4, 1 }, { 28, 1, 3 } };
    struct lun_facts facts = { .block_size = 512, .reads_zeros = true };
    struct block_extent extents[8];
    uint8_t bytes[256];
    unsigned size = status_make(bytes, runs, 6), count;

    count = facts_extents(&facts, bytes, size, 5 * 512, 100 * 512, extents, 8);
    cr_assert_eq(count, 5);
    cr_assert(extents[0].offset == 5 * 512 && extents[0].length == 5 * 512);
    cr_assert(extents[0].kind == BLOCK_EXTENT_DATA);
    cr_assert(extents[1].kind == BLOCK_EXTENT_ZERO && extents[1].length == 5 * 512);
    cr_assert(extents[2].kind == BLOCK_EXTENT_DATA, "anchored is data");
    cr_assert(extents[3].kind == BLOCK_EXTENT_ZERO && extents[3].length == 8 * 512);
    cr_assert(extents[4].kind == BLOCK_EXTENT_DATA, "an unknown kind is data");

    facts.reads_zeros = false;
    count = facts_extents(&facts, bytes, size, 0, 29 * 512, extents, 8);
    cr_assert(count == 1 && extents[0].kind == BLOCK_EXTENT_DATA);
    cr_assert(extents[0].length == 29 * 512);
}

Test(facts, extents_stop_at_the_room_and_at_the_range)
{
    static const struct run runs[] = { { 0, 10, 0 }, { 10, 5, 1 }, { 15, 5, 0 } };
    struct lun_facts facts = { .block_size = 512, .reads_zeros = true };
    struct block_extent extents[4];
    uint8_t bytes[128];
    unsigned size = status_make(bytes, runs, 3);

    cr_assert(facts_extents(&facts, bytes, size, 0, 20 * 512, extents, 2) == 2);
    cr_assert(facts_extents(&facts, bytes, size, 0, 12 * 512, extents, 4) == 2);
    cr_assert(extents[1].length == 2 * 512);
}

Test(facts, odd_extents_are_data)
{
    static const struct run odd[][2] = {
        { { 7, 3, 1 }, { 10, 5, 1 } }, /* begins after our start */
        { { 0, 0, 1 }, { 0, 5, 1 } }, /* empty */
        { { UINT64_MAX, 5, 1 }, { 0, 5, 1 } }, /* wraps */
    };
    struct lun_facts facts = { .block_size = 512, .reads_zeros = true };
    struct block_extent extents[4];
    uint8_t bytes[128];

    for (int i = 0; i < 3; i++) {
        unsigned size = status_make(bytes, odd[i], 2);
        cr_assert(facts_extents(&facts, bytes, size, 0, 8 * 512, extents, 4) == 1, "%d",
                i);
        cr_assert(extents[0].kind == BLOCK_EXTENT_DATA && extents[0].length == 8 * 512);
    }
    cr_assert(facts_extents(&facts, bytes, 0, 0, 8 * 512, extents, 4) == 1);
    cr_assert(extents[0].kind == BLOCK_EXTENT_DATA);
}

/** Chance for all readers: nothing is read past the end (ASan), extents keep their promise. */
Test(facts, noise_is_survived)
{
    uint64_t seed = seed_take("facts");

    for (int i = 0; i < 100000; i++) {
        unsigned length = (unsigned)seed_below(&seed, 80), count;
        uint8_t *bytes = malloc(length + !length);
        struct lun_facts facts = { .block_size = 512, .reads_zeros = i & 1 };
        struct block_identity identity;
        struct block_extent extents[4];
        uint64_t at = 512 * seed_below(&seed, 8);
        for (unsigned n = 0; n < length; n++)
            bytes[n] = (uint8_t)(seed_below(&seed, 3) ? seed_below(&seed, 20)
                                                      : seed_next(&seed));
        if (length > 4 && seed_below(&seed, 2)) {
            static const uint8_t pages[] = { 0x83, 0x80, 0xb0, 0xb2 };
            bytes[1] = pages[seed_below(&seed, 4)];
        }
        facts_inquiry(&facts, bytes, length);
        facts_vpd83(&facts, bytes, length);
        facts_vpd80(&facts, bytes, length);
        facts_vpdb0(&facts, bytes, length);
        facts_vpdb2(&facts, bytes, length);
        facts_mode(&facts, bytes, length);
        facts_reservation(&facts, bytes, length);
        facts_identity(&facts, &identity);
        count = facts_extents(&facts, bytes, length, at, 16 * 512, extents, 4);
        cr_assert(count >= 1 && count <= 4);
        for (unsigned n = 0; n < count; n++) {
            cr_assert(extents[n].offset == at && extents[n].length > 0);
            at += extents[n].length;
        }
        free(bytes);
    }
}
