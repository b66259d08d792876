/* Every opcode judged, against a table of its own. */
#include "tests/support/expect.h"

#include "server/iscsi/pdu.h"

enum { LIMIT = 262144 };

static const struct pdu_limits normal = { LIMIT, false }, discovery = { LIMIT, true };

static enum pdu_reject reason;

static enum pdu_fault judge(const uint8_t *bhs, const struct pdu_limits *limits)
{
    reason = (enum pdu_reject)0;
    return pdu_judge(bhs, limits, &reason);
}

/** As a careful initiator sends it: tag, final bit, nothing else. */
static void plain(uint8_t *bhs, unsigned opcode)
{
    pdu_start(bhs, (enum pdu_opcode)opcode, true);
    be32_put(bhs + 16, 1);
}

/* RFC 7143 11.1.1.1 and 4.3 written down again: opcodes an initiator has after its login. */
static const struct {
    unsigned opcode;
    bool data, in_discovery, tag, final;
} wanted[] = {
    { 0x00, true, true, false, true }, /* NOP-Out */
    { 0x01, true, false, true, false }, /* SCSI Command; F by its own rule */
    { 0x02, false, false, true, true }, /* Task Management */
    { 0x04, true, true, true, false }, /* Text */
    { 0x05, true, false, true, false }, /* Data-Out */
    { 0x06, false, true, true, true }, /* Logout */
};
enum { WANTED = sizeof wanted / sizeof wanted[0] };

Test(pdu, every_opcode_is_judged)
{
    unsigned fine = 0;

    for (unsigned opcode = 0; opcode < 64; opcode++) {
        uint8_t bhs[48];
        bool known = false;

        for (unsigned i = 0; i < WANTED; i++)
            known |= wanted[i].opcode == opcode;
        plain(bhs, opcode);
        if (opcode == 0x05) /* a Data-Out has data */
            be24_put(bhs + 5, 4);
        if (known) {
            cr_assert(judge(bhs, &normal) == PDU_FINE, "0x%02x", opcode);
            fine++;
        } else if (opcode == 0x10) {
            cr_assert(judge(bhs, &normal) == PDU_ANSWER_REJECT, "SNACK");
            expect_eq(reason, 0x03);
        } else {
            cr_assert(judge(bhs, &normal) == PDU_DROP, "0x%02x", opcode);
            cr_assert(reason == 0x04 || reason == 0x05, "0x%02x: %d", opcode, reason);
        }
    }
    expect_eq(fine, WANTED);
}

Test(pdu, the_immediate_bit_is_no_part_of_an_opcode)
{
    for (unsigned i = 0; i < WANTED; i++) {
        uint8_t bhs[48];

        plain(bhs, wanted[i].opcode);
        be24_put(bhs + 5, wanted[i].opcode == 5 ? 4 : 0);
        bhs[0] |= PDU_IMMEDIATE;
        expect_eq(judge(bhs, &normal), PDU_FINE);
    }
}

Test(pdu, data_may_come_where_it_has_a_place_and_up_to_the_limit)
{
    for (unsigned i = 0; i < WANTED; i++) {
        uint8_t bhs[48];

        plain(bhs, wanted[i].opcode);
        if (wanted[i].opcode == 0x01) {
            bhs[1] |= 0x20;
            be32_put(bhs + 20, LIMIT + 1);
        }
        be24_put(bhs + 5, LIMIT);
        cr_assert(judge(bhs, &normal) == (wanted[i].data ? PDU_FINE : PDU_DROP),
                "0x%02x", wanted[i].opcode);
        be24_put(bhs + 5, LIMIT + 1);
        cr_assert(judge(bhs, &normal) == PDU_DROP, "0x%02x", wanted[i].opcode);
        be24_put(bhs + 5, 0xffffff);
        cr_assert(judge(bhs, &normal) == PDU_DROP, "0x%02x", wanted[i].opcode);
    }
}

Test(pdu, no_opcode_has_an_additional_header)
{
    for (unsigned opcode = 0; opcode < 64; opcode++)
        for (unsigned words = 1; words < 256; words += 127) {
            uint8_t bhs[48];

            plain(bhs, opcode);
            bhs[4] = (uint8_t)words;
            cr_assert(judge(bhs, &normal) == PDU_DROP, "0x%02x", opcode);
        }
}

Test(pdu, tags_final_bits_and_discovery)
{
    for (unsigned i = 0; i < WANTED; i++) {
        uint8_t bhs[48];

        plain(bhs, wanted[i].opcode);
        be24_put(bhs + 5, wanted[i].opcode == 5 ? 4 : 0);
        expect_eq(judge(bhs, &discovery), wanted[i].in_discovery ? PDU_FINE : PDU_DROP);
        bhs[1] &= 0x7f;
        if (wanted[i].final) {
            expect_eq(judge(bhs, &normal), PDU_ANSWER_REJECT);
            expect_eq(reason, 0x09);
        } else if (wanted[i].opcode != 0x01) {
            expect_eq(judge(bhs, &normal), PDU_FINE);
        }
        bhs[1] |= 0x80;
        be32_put(bhs + 16, PDU_NO_TAG);
        if (wanted[i].tag)
            expect_eq(judge(bhs, &normal), PDU_DROP);
    }
}

Test(pdu, a_nop_without_a_tag_is_immediate)
{
    uint8_t bhs[48];

    plain(bhs, PDU_NOP_OUT);
    be32_put(bhs + 16, PDU_NO_TAG);
    expect_eq(judge(bhs, &normal), PDU_ANSWER_REJECT);
    bhs[0] |= PDU_IMMEDIATE;
    expect_eq(judge(bhs, &normal), PDU_FINE);
}

Test(pdu, commands_say_what_they_move)
{
    static const struct {
        uint8_t flags; /* F R W attribute */
        uint32_t expected, data;
        enum pdu_fault fault;
        unsigned reason;
    } rows[] = {
        { 0xc1, 512, 0, PDU_FINE, 0 }, /* a read */
        { 0xa1, 512, 512, PDU_FINE, 0 }, /* a write, all of it immediate */
        { 0x21, 512, 0, PDU_FINE, 0 }, /* unsolicited data follow */
        { 0xa1, 0, 0, PDU_FINE, 0 },
        { 0x81, 0, 0, PDU_FINE, 0 },
        { 0x84, 0, 0, PDU_FINE, 0 }, /* ACA */
        { 0xa1, 511, 512, PDU_DROP, 4 }, /* more than it will ever send */
        { 0xc1, 512, 1, PDU_DROP, 4 }, /* data with a read */
        { 0x81, 512, 1, PDU_DROP, 4 },
        { 0xe1, 512, 0, PDU_ANSWER_REJECT, 5 }, /* both */
        { 0x41, 512, 0, PDU_ANSWER_REJECT, 9 }, /* a read of which more comes */
        { 0x01, 0, 0, PDU_ANSWER_REJECT, 9 },
        { 0x85, 0, 0, PDU_ANSWER_REJECT, 9 },
        { 0x87, 0, 0, PDU_ANSWER_REJECT, 9 },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t bhs[48];

        plain(bhs, PDU_SCSI_COMMAND);
        bhs[1] = rows[i].flags;
        be32_put(bhs + 20, rows[i].expected);
        be24_put(bhs + 5, rows[i].data);
        cr_assert(judge(bhs, &normal) == rows[i].fault, "row %u", i);
        expect_eq(reason, rows[i].reason);
    }
}

Test(pdu, text_data_and_logout_have_rules_of_their_own)
{
    uint8_t bhs[48];

    plain(bhs, PDU_TEXT);
    bhs[1] = 0xc0; /* all was said, and more comes */
    expect_eq(judge(bhs, &normal), PDU_DROP);
    bhs[1] = 0x40;
    expect_eq(judge(bhs, &normal), PDU_FINE);

    plain(bhs, PDU_DATA_OUT);
    expect_eq(judge(bhs, &normal), PDU_FINE); /* empty, but it ends a sequence */
    bhs[1] = 0;
    expect_eq(judge(bhs, &normal), PDU_DROP);

    for (unsigned why = 0; why < 128; why++) {
        plain(bhs, PDU_LOGOUT);
        bhs[1] |= (uint8_t)why;
        expect_eq(judge(bhs, &normal), why <= 2 ? PDU_FINE : PDU_ANSWER_REJECT);
    }
}

Test(pdu, numbers_cross_the_edge_big_endian)
{
    uint8_t bytes[8];

    be64_put(bytes, UINT64_C(0x0123456789abcdef));
    expect(memcmp(bytes, "\x01\x23\x45\x67\x89\xab\xcd\xef", 8) == 0);
    expect(be64_get(bytes) == UINT64_C(0x0123456789abcdef));
    expect_eq(be24_get(bytes + 5), 0xabcdef);
    expect_eq(be16_get(bytes + 6), 0xcdef);
    be24_put(bytes, 0xff123456);
    expect(memcmp(bytes, "\x12\x34\x56\x67", 4) == 0);
}

Test(pdu, serial_numbers_wrap)
{
    expect_eq(serial_compare(0, 0xffffffff), 1);
    expect_eq(serial_compare(0xffffffff, 0), -1);
    expect_eq(serial_compare(0x7fffffff, 0x80000000), -1);
    expect_eq(serial_compare(5, 5), 0);
    expect_eq(serial_compare(0x7fffffff, 0), 1);
}

Test(pdu, padding)
{
    uint8_t bhs[48] = { 0 };

    for (uint32_t length = 0; length < 9; length++) {
        be24_put(bhs + 5, length);
        expect_eq(pdu_data_padded(bhs), (length + 3) / 4 * 4);
    }
    be24_put(bhs + 5, 0xffffff);
    expect_eq(pdu_data_padded(bhs), 0x1000000);
}
