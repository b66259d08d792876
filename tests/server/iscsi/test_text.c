/* Text as it comes: bounds, letters, numbers, binary, names. */
#include "tests/support/expect.h"

#include <stdio.h>
#include <stdlib.h>

#include "server/iscsi/text.h"

static struct text_pair pairs[TEXT_PAIRS_MAX];

/** '|' is NUL; the bytes end where the memory does, for the sanitizer. */
static int read_text(const char *text)
{
    size_t length = strlen(text);
    static char *bytes;

    free(bytes);
    bytes = malloc(length + 1);
    memcpy(bytes, text, length);
    bytes = realloc(bytes, length ? length : 1);
    for (size_t i = 0; i < length; i++)
        if (bytes[i] == '|')
            bytes[i] = 0;
    return text_read((const uint8_t *)bytes, length, pairs);
}

/** @count letters, then @tail. */
static const char *long_text(
        const char *head, char letter, size_t count, const char *tail)
{
    static char text[20000];
    char *at = text + sprintf(text, "%s", head);

    memset(at, letter, count);
    strcpy(at + count, tail);
    return text;
}

Test(text, pairs_are_read)
{
    expect_eq(read_text(""), 0);
    expect_eq(read_text("AB=1|A=2|ABC=3|"), 3); /* a beginning is not the same */
    expect_eq(read_text("|"), 0);
    expect_eq(read_text("||A=b|||C=|D==x|||"), 3);
    expect(text_is(&pairs[0], "A") && text_is(&pairs[1], "C") &&
            text_is(&pairs[2], "D"));
    expect_str(pairs[0].value, "b");
    expect_str(pairs[1].value, "");
    expect_str(pairs[2].value, "=x");
    expect_eq(pairs[2].value_length, 2);
    expect(!text_is(&pairs[0], "") && !text_is(&pairs[0], "AA") &&
            !text_is(&pairs[0], "a"));
}

Test(text, what_is_no_text_is_refused)
{
    static const char *const bad[] = { "A", "A=b", "A=b|C=d", "A|", "=|", "=b|",
        "A b=c|", "A,b=c|", "A\x01=c|", "A=b\x01|", "A=\x7f|", "A=\n|", "\xc3\xa4=c|",
        "A=1|A=1|", "A=1|B=2|A=3|", "A=1||A=2|" };

    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert(read_text(bad[i]) == -1, "%s", bad[i]);
    expect_eq(read_text("A=\xc3\xa4|"), 1); /* an alias may have what it likes */
    expect_eq(read_text("X-com.example_a@b+c=1|X#Node=2|a=3|"), 3);
}

Test(text, lengths_have_an_end)
{
    expect_eq(read_text(long_text("", 'A', 63, "=b|")), 1);
    expect_eq(read_text(long_text("", 'A', 64, "=b|")), -1);
    expect_eq(read_text(long_text("A=", 'b', 255, "|")), 1);
    expect_eq(read_text(long_text("A=", 'b', 256, "|")), -1);
    expect_eq(read_text(long_text("CHAP_R=", 'b', 8192, "|")), 1);
    expect_eq(read_text(long_text("CHAP_C=", 'b', 8193, "|")), -1);
    expect_eq(read_text(long_text("CHAP_N=", 'b', 256, "|")), -1);
    expect_eq(read_text(long_text("A=1", '|', 9000, "")), 1);
}

Test(text, sixty_four_pairs_and_no_more)
{
    char text[1000] = "", *at = text;

    for (int i = 0; i < 64; i++)
        at += sprintf(at, "K%d=%d|", i, i);
    expect_eq(read_text(text), 64);
    expect_str(pairs[63].value, "63");
    strcpy(at, "K64=1|");
    expect_eq(read_text(text), -1);
}

Test(text, numbers)
{
    static const struct {
        const char *value;
        bool good;
        uint32_t number;
    } rows[] = {
        { "0", true, 0 },
        { "1", true, 1 },
        { "007", true, 7 },
        { "0x0", true, 0 },
        { "0xfF", true, 255 },
        { "0X10", true, 16 },
        { "4294967295", true, 0xffffffff },
        { "0xffffffff", true, 0xffffffff },
        { "0x000000000001", true, 1 },
        { "4294967296", false, 0 },
        { "0x100000000", false, 0 },
        { "18446744073709551616", false, 0 },
        { "18446744073709551617", false, 0 },
        { "99999999999999999999999999999999999999", false, 0 },
        { "", false, 0 },
        { "0x", false, 0 },
        { "-1", false, 0 },
        { "+1", false, 0 },
        { " 1", false, 0 },
        { "1 ", false, 0 },
        { "1.0", false, 0 },
        { "0xg", false, 0 },
        { "a", false, 0 },
        { "0b1", false, 0 },
        { "1x", false, 0 },
        { "1,2", false, 0 },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint32_t number = 77;

        cr_assert(text_number(rows[i].value, &number) == rows[i].good, "\"%s\"",
                rows[i].value);
        expect_eq(number, rows[i].good ? rows[i].number : 77);
    }
}

Test(text, lists)
{
    const char *member;
    size_t length;

    expect(text_member("a,,bc", 0, &member, &length) && length == 1 && *member == 'a');
    expect(text_member("a,,bc", 1, &member, &length) && length == 0);
    expect(text_member("a,,bc", 2, &member, &length) && length == 2 && *member == 'b');
    expect(!text_member("a,,bc", 3, &member, &length));
    expect(text_member("", 0, &member, &length) && length == 0);
    expect(!text_member("", 1, &member, &length));
    expect(text_member(",", 1, &member, &length) && length == 0);
    expect(!text_member(",", 2, &member, &length));
}

static int binary(const char *value, uint8_t *to, size_t room)
{
    return text_binary(value, strlen(value), to, room);
}

Test(text, binary_in_both_forms)
{
    static const char *const bad[] = { "", "0", "0x", "0b", "x12", "12", "0x1", "0x123",
        "0x1g", "0xg1", "0x 12", "0b====", "0bA===", "0bAA=A", "0bAAA", "0bAAAAA",
        "0bAA==AAAA", "0bAB==", "0bAAB=", "0bA*AA", "0bAA-_", "0o12", "0b=AAA",
        "0x12 " };
    uint8_t to[4] = { 9, 9, 9, 9 };

    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert(binary(bad[i], to, 4) == -1, "%s", bad[i]);
    expect_eq(binary("0x0aFf", to, 4), 2);
    expect(memcmp(to, "\x0a\xff", 2) == 0);
    expect_eq(binary("0X01020304", to, 4), 4);
    expect_eq(binary("0x0102030405", to, 4), -1);
    expect_eq(binary("0bAQIDBA==", to, 4), 4);
    expect(memcmp(to, "\1\2\3\4", 4) == 0);
    expect_eq(binary("0B+/8=", to, 4), 2);
    expect(memcmp(to, "\xfb\xff", 2) == 0);
    expect_eq(binary("0bAQIDBAU=", to, 4), -1);
    expect_eq(binary("0bAQID", to, 3), 3);
    expect_eq(binary("0bAQID", to, 2), -1);
}

Test(text, an_overlong_binary_writes_nothing)
{
    uint8_t to[8] = { 9, 9, 9, 9, 9, 9, 9, 9 };

    expect_eq(binary("0x0102030405060708", to, 4), -1);
    expect_eq(binary("0bAQIDBAUG", to, 4), -1);
    expect(memcmp(to, "\t\t\t\t\t\t\t\t", 8) == 0);
}

Test(text, the_writer_stays_in_its_room)
{
    uint8_t room[16], long_room[400] = { 0 };
    struct text_writer writer = { .at = room, .room = 10 };

    memset(room, 0xa5, sizeof room);
    text_write_key(&writer, "ab", "cd"); /* 6 with its NUL */
    expect(!writer.overflow && writer.length == 6);
    text_write_key(&writer, "a", "bc"); /* 5: does not fit */
    expect(writer.overflow && writer.length == 6);
    text_write_key(&writer, "a", ""); /* would fit, but the answer is broken */
    expect_eq(writer.length, 6);
    expect(memcmp(room, "ab=cd\0\xa5", 7) == 0);
    writer = (struct text_writer){ .at = room, .room = 10 };
    text_write_number(&writer, "n", 4294967u);
    expect(!writer.overflow && writer.length == 10);
    expect(room[10] == 0xa5);
    writer = (struct text_writer){ .at = long_room, .room = sizeof long_room };
    text_write_binary(&writer, "n", long_room, 32);
    expect(!writer.overflow && writer.length == 2 + 2 + 64 + 1);
    text_write_binary(&writer, "n", long_room, 33);
    expect(writer.overflow);
}

Test(text, names_are_normalised)
{
    static const struct {
        const char *name, *normal;
    } rows[] = {
        { "iqn.2026-11.org.example", "iqn.2026-11.org.example" },
        { "IQN.2026-11.Org.Example:Disk.1", "iqn.2026-11.org.example:disk.1" },
        { "iqn.1993-08.org.debian:01:abc_d", "iqn.1993-08.org.debian:01:abc_d" },
        { "iqn.2026-11.org.example:\xc3\xa4", "iqn.2026-11.org.example:\xc3\xa4" },
        { "eui.02004567A425678D", "eui.02004567a425678d" },
        { "naa.52004567BA64678D", "naa.52004567ba64678d" },
        { "naa.62004567BA64678D0123456789ABCDEF",
                "naa.62004567ba64678d0123456789abcdef" },
        { "", NULL },
        { "iqn", NULL },
        { "iqn.", NULL },
        { "iqn.2026", NULL },
        { "iqn.2026-11", NULL },
        { "iqn.2026-11.", NULL },
        { "iqn.2026-11.:x", NULL },
        { "iqn.2026-13.org.example", NULL },
        { "iqn.2026-00.org.example", NULL },
        { "iqn.20a6-11.org.example", NULL },
        { "iqn.2026:11.org.example", NULL },
        { "iqn.2026-11.org example", NULL },
        { "iqn.2026-11.org/example", NULL },
        { "iqn.2026-11.org.example*", NULL },
        { "xiqn.2026-11.org.example", NULL },
        { "eui.02004567A425678", NULL },
        { "eui.02004567A425678DD", NULL },
        { "eui.02004567A425678G", NULL },
        { "naa.52004567BA64678", NULL },
        { "naa.52004567BA64678D0", NULL },
        { "host", NULL },
        { "*", NULL },
    };
    char name[TEXT_NAME_MAX + 1];

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cr_assert(text_name(rows[i].name, name) == (rows[i].normal != NULL), "%s",
                rows[i].name);
        expect_str(name, rows[i].normal ? rows[i].normal : "");
    }
    expect(text_name(long_text("iqn.2026-11.a:", 'x', 223 - 14, ""), name));
    expect_eq(strlen(name), 223);
    expect(!text_name(long_text("iqn.2026-11.a:", 'x', 224 - 14, ""), name));
    expect_str(name, "");
}
