#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/clock.h"
#include "replica/base/digest.h"
#include "replica/base/fault.h"
#include "replica/base/fsm.h"
#include "replica/base/trace.h"
#include "replica/base/uuid.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

/* -- checked arithmetic --------------------------------------------------------------- */

Test(checked, sums_and_products_that_wrap_are_told)
{
    uint64_t out = 7;

    expect(checked_add(UINT64_MAX - 1, 1, &out) && out == UINT64_MAX);
    expect(!(checked_add(UINT64_MAX, 1, &out)));
    expect(checked_mul(1u << 31, 1u << 31, &out) && out == (uint64_t)1 << 62);
    expect(!(checked_mul((uint64_t)1 << 32, (uint64_t)1 << 32, &out)));
}

Test(checked, a_range_cannot_wrap_into_the_device)
{
    expect(range_inside(0, 10, 10));
    expect(range_inside(10, 0, 10));
    expect(!(range_inside(10, 1, 10)));
    expect(!(range_inside(11, 0, 10)));
    expect(!(range_inside(5, UINT64_MAX - 2, 10)));
}

Test(checked, rounding_and_network_order)
{
    const uint8_t bytes[8] = { 0x80, 1, 2, 3, 4, 5, 6, 0xff };

    expect_eq(round_up(0, 512), 0);
    expect_eq(round_up(1, 512), 512);
    expect_eq(round_up(512, 512), 512);
    expect_eq(get_be32(bytes), 0x80010203u);
    expect_eq(get_be64(bytes), 0x80010203040506ffu);
}

/* -- clock ---------------------------------------------------------------------------- */

struct spelling {
    const char *text;
    int64_t ms;
};

static const struct spelling spellings[] = {
    { "1970-01-01T00:00:00.000Z", 0 },
    { "2026-11-21T20:00:00.123Z", 1795291200123 },
    { "2000-02-29T23:59:59.999Z", 951868799999 },
    { "1969-12-31T23:59:59.999Z", -1 },
    { "0000-01-01T00:00:00.000Z", -62167219200000 },
    { "9999-12-31T23:59:59.999Z", 253402300799999 },
};

Test(clock, formats_and_reads_back)
{
    char text[CLOCK_TEXT];
    int64_t ms = 0;

    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        clock_format(spellings[i].ms, text);
        expect_str(text, spellings[i].text);
        cr_assert(clock_parse(spellings[i].text, &ms) && ms == spellings[i].ms,
                "%s gave %lld", spellings[i].text, (long long)ms);
    }
}

Test(clock, what_is_out_of_range_is_clamped)
{
    char text[CLOCK_TEXT];

    clock_format(INT64_MIN, text);
    expect_str(text, "0000-01-01T00:00:00.000Z");
    clock_format(INT64_MAX, text);
    expect_str(text, "9999-12-31T23:59:59.999Z");
}

Test(clock, every_day_of_four_centuries_reads_back)
{
    char text[CLOCK_TEXT];
    int64_t ms;

    for (int64_t day = -135140; day < 150000; day++) { /* 1600 to 2380 */
        clock_format(day * 86400000 + 1, text);
        cr_assert(clock_parse(text, &ms) && ms == day * 86400000 + 1, "%s", text);
    }
}

Test(clock, reads_offsets_fractions_and_leap_seconds)
{
    static const struct spelling others[] = {
        { "1970-01-01T01:00:00+01:00", 0 },
        { "1969-12-31t22:30:00-01:30", 0 },
        { "1970-01-01 00:00:00.5z", 500 },
        { "1970-01-01T00:00:00.0019999Z", 1 },
        { "2016-12-31T23:59:60Z", 1483228800000 },
        { "2017-01-01T00:59:60+01:00", 1483228800000 },
    };
    int64_t ms;

    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        cr_assert(clock_parse(others[i].text, &ms) && ms == others[i].ms, "%s",
                others[i].text);
}

Test(clock, refuses_anything_else)
{
    static const char *const wrong[] = { "", "now", "2026-11-21", "2026-11-21T20:00:00",
        "2026-11-21T20:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z",
        "2026-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2026-04-31T00:00:00Z",
        "2026-01-00T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:61Z", "2026-01-01T12:00:60Z", "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00+0100",
        "2026-01-01T00:00:00Z ", " 2026-01-01T00:00:00Z", "+026-01-01T00:00:00Z",
        "2026-1-01T00:00:00Z", "2026-01-01T00:00:00.-1Z" };
    int64_t ms = 42;

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_assert(!(clock_parse(wrong[i], &ms)), "%s", wrong[i]);
    expect_eq(ms, 42);
}

Test(clock, instants_saturate_and_round_up)
{
    struct instant zero = { 0 }, late = { UINT64_MAX }, one = { 1 };

    expect_eq(instant_add_ms(late, 1).ns, UINT64_MAX);
    expect_eq(instant_add_ms(zero, UINT64_MAX).ns, UINT64_MAX);
    expect_eq(instant_add_ms(one, 2).ns, 2000001);
    expect_eq(instant_ms_until(zero, one), 1);
    expect_eq(instant_ms_until(one, zero), 0);
    expect_eq(instant_ms_until(zero, (struct instant){ 2000000 }), 2);
    expect(instant_reached(one, one) && !instant_reached(zero, one));
    expect_eq(instant_timespec((struct instant){ 3000000007 }).tv_sec, 3);
    expect_eq(instant_timespec((struct instant){ 3000000007 }).tv_nsec, 7);
    expect_eq(instant_timespec(late).tv_sec, UINT64_MAX / 1000000000);
    expect_eq(deadline_in(UINT64_MAX).tv_nsec, UINT64_MAX % 1000000000);
    expect(deadline_in(3600000).tv_sec >=
            (time_t)(clock_monotonic().ns / 1000000000) + 3599);
}

/* -- uuid ----------------------------------------------------------------------------- */

Test(uuid, ids_grow_strictly_and_carry_their_time)
{
    int64_t before = clock_wall_ms();
    struct uuid last = uuid_make(), again;

    for (int i = 0; i < 20000; i++) { /* far more than one millisecond's counter */
        struct uuid next = uuid_make();
        cr_assert(strcmp(last.text, next.text) < 0, "%s %s", last.text, next.text);
        last = next;
    }
    expect(uuid_parse(last.text, &again) && uuid_equal(&last, &again));
    expect_eq(last.text[14], '7');
    expect(strchr("89ab", last.text[19]));
    expect(strcmp(uuid_floor(before).text, last.text) <= 0);
    expect(strcmp(uuid_floor(before + 60000).text, last.text) > 0);
}

Test(uuid, the_floor_of_a_time_is_spelled_exactly)
{
    expect_str(uuid_floor(0x0193aabbccdd).text, "0193aabb-ccdd-7000-8000-000000000000");
    expect_str(uuid_floor(-5).text, "00000000-0000-7000-8000-000000000000");
}

Test(uuid, takes_either_case_and_nothing_else)
{
    static const char *const wrong[] = { "", "0193aabb-ccdd-7000-8000-00000000000",
        "0193aabb-ccdd-7000-8000-0000000000000", "0193aabbccdd-7000-8000-000000000000-",
        "0193aabb-ccdd-7000-8000-00000000000g", "0193aabb_ccdd-7000-8000-000000000000",
        "{193aabb-ccdd-7000-8000-000000000000" };
    struct uuid uuid = { "" };

    expect(uuid_is_none(&uuid));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_assert(!(uuid_parse(wrong[i], &uuid)), "%s", wrong[i]);
    expect(uuid_is_none(&uuid));
    expect(uuid_parse("0193AABB-CCDD-4000-C000-00000000ABCF", &uuid));
    expect_str(uuid.text, "0193aabb-ccdd-4000-c000-00000000abcf");
    expect(!(uuid_is_none(&uuid)));
}

/* -- digests -------------------------------------------------------------------------- */

Test(digest, crc32c_gives_the_vectors_of_rfc_3720_b_4)
{
    uint8_t bytes[32];
    static const uint8_t read_command[48] = { 0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0, 0, 0, 0, 0x14, 0, 0, 0, 0x18, 0x28, 0,
        0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0 };

    expect_eq(digest_crc32c(memset(bytes, 0, 32), 32), 0x8a9136aau);
    expect_eq(digest_crc32c(memset(bytes, 0xff, 32), 32), 0x62a8ab43u);
    for (unsigned i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    expect_eq(digest_crc32c(bytes, 32), 0x46dd794eu);
    for (unsigned i = 0; i < 32; i++)
        bytes[i] = (uint8_t)(31 - i);
    expect_eq(digest_crc32c(bytes, 32), 0x113fdb5cu);
    expect_eq(digest_crc32c(read_command, 48), 0xd9963a56u);
    expect_eq(digest_crc32c("", 0), 0);
}

Test(digest, sha256_and_xxh3_give_known_values)
{
    static const uint8_t abc[32] = { 0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
        0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96,
        0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad };
    uint8_t digest[32];
    struct digest128 empty = digest_xxh3("", 0);

    digest_sha256("abc", 3, digest);
    expect(memcmp(digest, abc, 32) == 0);
    expect_eq(empty.high, 0x99aa06d3014798d8u);
    expect_eq(empty.low, 0x6001c324468d497fu);
    expect(!(digest_equal(empty, digest_xxh3("\0", 1))));
}

/* Whatever vectors the CPU has: a digest that is kept is read on another one. */
Test(digest, xxh3_of_a_chunk_is_the_same_everywhere)
{
    static uint8_t bytes[65536];
    struct digest128 chunk, part;

    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7 + (i >> 8));
    chunk = digest_xxh3(bytes, sizeof bytes);
    part = digest_xxh3(bytes, 1000);
    expect_eq(chunk.low, 0x9ae973f97c1f3ebau);
    expect_eq(chunk.high, 0x267bdd80b3f27449u);
    expect_eq(part.low, 0xd1db6a0afea2cc82u);
    expect_eq(part.high, 0xbae798f9321bda6cu);
}

Test(digest, four_kinds_give_known_values)
{
    static const struct {
        enum digest_kind kind;
        size_t size;
        const char *hex; /* of "abc", by Python's hashlib */
    } rows[] = {
        { DIGEST_MD5, 16, "900150983cd24fb0d6963f7d28e17f72" },
        { DIGEST_SHA1, 20, "a9993e364706816aba3e25717850c26c9cd0d89d" },
        { DIGEST_SHA256, 32,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
        { DIGEST_SHA3_256, 32,
                "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t digest[DIGEST_MAX];
        char hex[2 * DIGEST_MAX + 1];

        memset(digest, 0xa5, sizeof digest);
        expect(digest_make(rows[i].kind, "abc", 3, digest));
        expect_eq(digest_size(rows[i].kind), rows[i].size);
        for (size_t at = 0; at < sizeof digest; at++)
            (void)snprintf(hex + 2 * at, 3, "%02x", digest[at]);
        expect(strncmp(hex, rows[i].hex, 2 * rows[i].size) == 0);
        for (size_t at = rows[i].size; at < sizeof digest; at++)
            expect_eq(digest[at], 0);
    }
    expect(digest_same("abc", "abd", 2) && !digest_same("abc", "abd", 3));
}

Test(digest, one_bit_anywhere_is_not_zero)
{
    static uint8_t bytes[257];

    for (size_t length = 0; length <= 256; length++)
        expect(digest_is_zero(bytes + 1, length));
    for (size_t length = 1; length <= 256; length++) {
        for (size_t at = 0; at < length; at++) {
            bytes[1 + at] = (uint8_t)(1 << at % 8);
            cr_assert(!(digest_is_zero(bytes + 1, length)), "%zu %zu", length, at);
            bytes[1 + at] = 0;
        }
    }
}

/* -- states --------------------------------------------------------------------------- */

enum { IDLE, BUSY, MISSING, OVER, COUNT };

static const struct fsm_state states[COUNT] = {
    [IDLE] = { "Idle", 1u << BUSY | 1u << MISSING },
    [BUSY] = { "Busy", 1u << BUSY | 1u << OVER },
    [OVER] = { "Over", 0 },
};
static const struct fsm_table machine = { "machine", states, COUNT };

Test(fsm, every_pair_answers_as_its_row_says)
{
    static const bool allowed[COUNT][COUNT] = {
        [IDLE][BUSY] = true,
        [BUSY][BUSY] = true,
        [BUSY][OVER] = true,
    };

    for (unsigned from = 0; from <= COUNT; from++)
        for (unsigned to = 0; to <= 70; to++)
            cr_assert(fsm_allows(&machine, from, to) ==
                            (from < COUNT && to < COUNT && allowed[from][to]),
                    "%u %u", from, to);
}

Test(fsm, states_beyond_the_64th_are_nobodys)
{
    static const struct fsm_state many[70] = {
        [0] = { "First", UINT64_MAX },
        [63] = { "Last", UINT64_MAX },
        [64] = { "Beyond", UINT64_MAX },
    };
    const struct fsm_table wide = { "wide", many, 70 };

    expect(fsm_allows(&wide, 0, 63) && fsm_allows(&wide, 63, 0));
    expect(!fsm_allows(&wide, 0, 64) && !fsm_allows(&wide, 64, 0));
}

Test(fsm, moves_where_it_may)
{
    unsigned state = IDLE;

    fsm_move(&machine, &state, BUSY);
    fsm_move(&machine, &state, BUSY);
    fsm_move(&machine, &state, OVER);
    expect_eq(state, OVER);
}

Test(fsm, a_move_that_no_row_allows_ends_the_process, .signal = SIGABRT)
{
    unsigned state = OVER;
    fsm_move(&machine, &state, IDLE);
}

/* -- checks, faults, traces ----------------------------------------------------------- */

Test(check, a_false_condition_ends_the_process, .signal = SIGABRT)
{
    check(1 == 1);
    check(1 == 2);
}

Test(fault, keeps_the_words_and_passes_the_number_on)
{
    struct fault fault = { 0 };

    expect_eq(fault_set(&fault, -5, "%s %d", "block", 7), -5);
    expect_str(fault.why, "block 7");
    expect_eq(fault.error, -5);
    expect_eq(fault_set(NULL, -6, "nobody listens"), -6);
    fault_set(&fault, -5, "%0500d", 1);
    expect_eq(strlen(fault.why), sizeof fault.why - 1);
}

static size_t trace_read(char *text, size_t room)
{
    FILE *file = tmpfile();
    size_t length;

    trace_print(fileno(file));
    rewind(file);
    length = fread(text, 1, room - 1, file);
    text[length] = '\0';
    fclose(file);
    return length;
}

Test(trace, keeps_the_last_512_of_a_thread_oldest_first)
{
    static char text[200000];

    for (uint64_t i = 0; i < 600; i++)
        trace("point", i, UINT64_MAX);
    trace_read(text, sizeof text);
    expect(!(strstr(text, "point 87 18446744073709551615\n")));
    char *first = strstr(text, "point 88 18446744073709551615\n");
    char *last = strstr(text, "point 599 18446744073709551615\n");
    expect(first && last && first < last);
}
