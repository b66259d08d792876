/* Addresses: what is taken, what it becomes, and every spelling that must not be. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "replica/block/address.h"
#include "tests/support/seed.h"

static const struct {
    const char *text, *canonical;
} good[] = {
    { "pool:default/a.img", "pool:default/a.img" },
    { "pool:p/dir/x..y", "pool:p/dir/x..y" },
    { "pool:A.b-c_9/\303\244", "pool:A.b-c_9/\303\244" },
    { "iscsi://127.0.0.1:3261/iqn.2026-11.example:t1/1",
            "iscsi://127.0.0.1:3261/iqn.2026-11.example:t1/1" },
    { "iscsi://127.0.0.1/iqn.2026-11.EXAMPLE:T1/0",
            "iscsi://127.0.0.1:3260/iqn.2026-11.example:t1/0" },
    { "iscsi://[::1]:65535/iqn.a/16383", "iscsi://[::1]:65535/iqn.a/16383" },
    { "iscsi://[0:0::0:1]/iqn.a/9", "iscsi://[::1]:3260/iqn.a/9" },
    { "iscsi://[::ffff:127.0.0.1]:1/iqn.a/9", "iscsi://127.0.0.1:1/iqn.a/9" },
    { "iscsi://[::ffff:7f00:1]:1/iqn.a/9", "iscsi://127.0.0.1:1/iqn.a/9" },
    { "iscsi://10.0.0.1:1/eui.02004567A425678D/9",
            "iscsi://10.0.0.1:1/eui.02004567a425678d/9" },
    { "iscsi://10.0.0.1:1/naa.52004567BA64678D/9",
            "iscsi://10.0.0.1:1/naa.52004567ba64678d/9" },
    { "iscsi://10.0.0.1:1/naa.62004567BA64678D0123456789ABCDEF/9",
            "iscsi://10.0.0.1:1/naa.62004567ba64678d0123456789abcdef/9" },
};

#define LUN1 "/iqn.2026-11.example:t1/1"

static const char *const bad[] = {
    "",
    "pool",
    "pool:",
    "pool:/",
    "pool:/x",
    "pool:p",
    "pool:p/",
    "pool:.p/x",
    "pool:p//x",
    "pool:p/./x",
    "pool:p/../x",
    "pool:p/..",
    "pool:p/x/",
    "pool:p/x\n",
    "pool:p/a\177",
    "pool:p q/x",
    "pool:p%2f/x",
    "POOL:p/x",
    " pool:p/x",
    "pool:../x",
    "file:///etc/passwd",
    "/etc/passwd",
    "pool:pppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp/x",
    "iscsi:/127.0.0.1" LUN1,
    "ISCSI://127.0.0.1" LUN1,
    "iser://127.0.0.1" LUN1,
    "iscsi://" LUN1,
    "iscsi://localhost" LUN1,
    "iscsi://example.com" LUN1,
    "iscsi://0x7f000001" LUN1,
    "iscsi://0x7f.0.0.1" LUN1,
    "iscsi://2130706433" LUN1,
    "iscsi://127.1" LUN1,
    "iscsi://127.0.1" LUN1,
    "iscsi://127.0.0.01" LUN1,
    "iscsi://0177.0.0.1" LUN1,
    "iscsi://127.0.0.1." LUN1,
    "iscsi://127.0.0.256" LUN1,
    "iscsi://127.0.0.1.1" LUN1,
    "iscsi:// 127.0.0.1" LUN1,
    "iscsi://127.0.0.1 " LUN1,
    "iscsi://127.0.0.1:68796" LUN1,
    "iscsi://127.0.0.1:0" LUN1,
    "iscsi://127.0.0.1:" LUN1,
    "iscsi://127.0.0.1:+1" LUN1,
    "iscsi://127.0.0.1:-1" LUN1,
    "iscsi://127.0.0.1: 1" LUN1,
    "iscsi://127.0.0.1:1 " LUN1,
    "iscsi://127.0.0.1:03260" LUN1,
    "iscsi://127.0.0.1:0x1" LUN1,
    "iscsi://127.0.0.1:4294970556" LUN1,
    "iscsi://127.0.0.1:1:1" LUN1,
    "iscsi://127.0.0.1,1" LUN1,
    "iscsi://127.0.0.1:3260,1" LUN1,
    "iscsi://::1" LUN1,
    "iscsi://[::1" LUN1,
    "iscsi://::1]" LUN1,
    "iscsi://[]" LUN1,
    "iscsi://[127.0.0.1]" LUN1,
    "iscsi://[fe80::1%eth0]" LUN1,
    "iscsi://[::1]x" LUN1,
    "iscsi://[::g]" LUN1,
    "iscsi://[1:2:3:4:5:6:7:8:9]" LUN1,
    "iscsi://[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0001]" LUN1,
    "iscsi://0.0.0.0" LUN1,
    "iscsi://[::]" LUN1,
    "iscsi://[::ffff:0.0.0.0]" LUN1,
    "iscsi://user@127.0.0.1" LUN1,
    "iscsi://user%pass@127.0.0.1" LUN1,
    "iscsi://127.0.0.1@10.0.0.1" LUN1,
    "iscsi://127.0.0.1\\@10.0.0.1" LUN1,
    "iscsi://127.0.0.1",
    "iscsi://127.0.0.1/",
    "iscsi://127.0.0.1//1",
    "iscsi://127.0.0.1/iqn.a",
    "iscsi://127.0.0.1/iqn.a/",
    "iscsi://127.0.0.1/iqn./1",
    "iscsi://127.0.0.1/foo.a/1",
    "iscsi://127.0.0.1/iqn.a b/1",
    "iscsi://127.0.0.1/iqn.a%41/1",
    "iscsi://127.0.0.1/iqn.a,1/1",
    "iscsi://127.0.0.1/iqn.\303\244/1",
    "iscsi://127.0.0.1/eui.0200/1",
    "iscsi://127.0.0.1/eui.02004567A425678G/1",
    "iscsi://127.0.0.1/naa.52004567BA64678/1",
    "iscsi://127.0.0.1/iqn.a/16384",
    "iscsi://127.0.0.1/iqn.a/99999999999",
    "iscsi://127.0.0.1/iqn.a/4294967296",
    "iscsi://127.0.0.1/iqn.a/18446744073709551617",
    "iscsi://127.0.0.1/iqn.a/-1",
    "iscsi://127.0.0.1/iqn.a/+1",
    "iscsi://127.0.0.1/iqn.a/ 1",
    "iscsi://127.0.0.1/iqn.a/1 ",
    "iscsi://127.0.0.1/iqn.a/01",
    "iscsi://127.0.0.1/iqn.a/0x1",
    "iscsi://127.0.0.1/iqn.a/1/",
    "iscsi://127.0.0.1/iqn.a/1/2",
    "iscsi://127.0.0.1/iqn.a/1?x=y",
    "iscsi://127.0.0.1/iqn.a/1#x",
    "iscsi://127.0.0.1/iqn.a/x",
    "iscsi://127.0.0.1/iqn.a/1e3",
};

Test(address, what_is_taken_has_one_spelling)
{
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct address address, again;
        struct fault fault = { 0 };
        char text[ADDRESS_TEXT];
        cr_assert(address_parse(good[i].text, &address, &fault) == 0, "%s: %s",
                good[i].text, fault.why);
        address_format(&address, text);
        cr_assert_str_eq(text, good[i].canonical);
        cr_assert(address_parse(text, &again, NULL) == 0);
        cr_assert(memcmp(&address, &again, sizeof(address)) == 0, "%s", text);
    }
}

Test(address, hostile_spellings_are_refused_with_a_reason)
{
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct address address;
        struct fault fault = { 0 };
        cr_assert(address_parse(bad[i], &address, &fault) == -EINVAL, "taken: %s",
                bad[i]);
        cr_assert(fault.error == -EINVAL && fault.why[0], "no words: %s", bad[i]);
        cr_assert(!strstr(fault.why, "pass"), "a secret in: %s", fault.why);
    }
}

Test(address, the_longest_names_fit_and_one_more_does_not)
{
    char text[700], canonical[ADDRESS_TEXT];
    struct address address;

    snprintf(text, sizeof(text),
            "iscsi://[1111:2222:3333:4444:5555:6666:7777:8888]:65535/iqn.%0219d/16383",
            7);
    cr_assert(address_parse(text, &address, NULL) == 0);
    address_format(&address, canonical);
    cr_assert_str_eq(canonical, text);
    snprintf(text, sizeof(text), "iscsi://127.0.0.1/iqn.%0220d/1", 7);
    cr_assert(address_parse(text, &address, NULL) == -EINVAL);
    snprintf(text, sizeof(text), "pool:%063d/%0255d", 1, 2);
    cr_assert(address_parse(text, &address, NULL) == 0);
    address_format(&address, canonical);
    cr_assert_str_eq(canonical, text);
    snprintf(text, sizeof(text), "pool:%063d/%0256d", 1, 2);
    cr_assert(address_parse(text, &address, NULL) == -EINVAL);
}

Test(address, a_changed_byte_is_refused_or_spelled_back)
{
    uint64_t seed = seed_take("address");

    for (int i = 0; i < 200000; i++) {
        char text[128], again[ADDRESS_TEXT];
        struct address address, second;
        snprintf(text, sizeof(text), "%s", good[seed_below(&seed, 8)].text);
        for (uint64_t n = 1 + seed_below(&seed, 3); n; n--)
            text[seed_below(&seed, strlen(text))] = (char)(1 + seed_below(&seed, 255));
        if (address_parse(text, &address, NULL) != 0)
            continue;
        address_format(&address, again);
        cr_assert(address_parse(again, &second, NULL) == 0, "%s gave %s", text, again);
        cr_assert(memcmp(&address, &second, sizeof(address)) == 0, "%s gave %s", text,
                again);
    }
}

static struct sockaddr_storage portal_of(const char *text)
{
    struct sockaddr_storage portal;

    cr_assert(portal_parse(text, 0, true, &portal, NULL) == 0, "%s", text);
    return portal;
}

Test(portal, ports_and_defaults)
{
    struct sockaddr_storage portal;
    char text[BLOCK_PORTAL_TEXT];

    cr_assert(portal_parse("127.0.0.1", 0, false, &portal, NULL) == -EINVAL);
    cr_assert(portal_parse("127.0.0.1:0", 0, false, &portal, NULL) == -EINVAL);
    cr_assert(portal_parse("127.0.0.1:0", 0, true, &portal, NULL) == 0);
    cr_assert(portal_parse("127.0.0.1:80x", 0, true, &portal, NULL) == -EINVAL);
    cr_assert(portal_parse("[::1]", 8080, false, &portal, NULL) == 0);
    portal_format(&portal, text);
    cr_assert_str_eq(text, "[::1]:8080");
    cr_assert_eq(portal_port(&portal), 8080);
    cr_assert(portal_is_loopback(&portal) &&
            portal_length(&portal) == sizeof(struct sockaddr_in6));
    portal = portal_of("127.9.9.9:1");
    cr_assert(portal_is_loopback(&portal) &&
            portal_length(&portal) == sizeof(struct sockaddr_in));
    portal = portal_of("128.0.0.1:1");
    cr_assert(!portal_is_loopback(&portal));
    portal = portal_of("[::2]:1");
    cr_assert(!portal_is_loopback(&portal));
}

Test(portal, equal_means_family_address_and_port)
{
    struct sockaddr_storage a = portal_of("127.0.0.1:1"),
                            b = portal_of("[::ffff:127.0.0.1]:1");
    struct sockaddr_storage c = portal_of("127.0.0.1:2"), d = portal_of("[::1]:1");

    cr_assert(portal_equal(&a, &b));
    cr_assert(!portal_equal(&a, &c));
    cr_assert(!portal_equal(&a, &d));
}

static const struct {
    const char *rule, *portal;
    bool allowed;
} allowed[] = {
    { "127.0.0.1", "127.0.0.1:1", true },
    { "127.0.0.1", "127.0.0.2:1", false },
    { "127.0.0.1:3260", "127.0.0.1:3260", true },
    { "127.0.0.1:3260", "127.0.0.1:3261", false },
    { "127.0.0.0/8", "127.255.0.1:9", true },
    { "127.0.0.0/8", "128.0.0.1:9", false },
    { "10.0.0.0/9", "10.127.1.1:9", true },
    { "10.0.0.0/9", "10.128.1.1:9", false },
    { "10.1.2.3/31", "10.1.2.2:9", true },
    { "10.1.2.3/31", "10.1.2.4:9", false },
    { "0.0.0.0/0", "1.2.3.4:9", true },
    { "0.0.0.0/0", "[::1]:9", false },
    { "[::1]", "[::1]:9", true },
    { "[::1]", "[::2]:9", false },
    { "[::1]/128:5", "[::1]:5", true },
    { "[fd00::]/8", "[fdff::1]:5", true },
    { "[fd00::]/8", "[fc00::1]:5", false },
    { "[::]/0", "[fc00::1]:5", true },
    { "[::]/0", "127.0.0.1:5", false },
    { "[::]/0", "[::ffff:127.0.0.1]:5", false },
    { "127.0.0.1", "[::ffff:127.0.0.1]:5", true },
    { "[::ffff:127.0.0.1]", "127.0.0.1:5", true },
    { "[::ffff:127.0.0.0]/104", "127.3.3.3:5", true },
};

Test(portal, the_allow_list)
{
    for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++) {
        struct portal_rule rule;
        struct sockaddr_storage portal = portal_of(allowed[i].portal);
        cr_assert(portal_rule_parse(allowed[i].rule, &rule, NULL) == 0, "%s",
                allowed[i].rule);
        cr_assert(portal_rule_allows(&rule, &portal) == allowed[i].allowed, "%s %s",
                allowed[i].rule, allowed[i].portal);
    }
}

Test(portal, a_mapped_address_that_no_parser_of_ours_saw_counts_as_v4)
{
    struct sockaddr_in6 raw = { .sin6_family = AF_INET6, .sin6_port = htons(5) };
    struct sockaddr_storage portal = { 0 };
    struct portal_rule rule;

    cr_assert(inet_pton(AF_INET6, "::ffff:10.0.0.1", &raw.sin6_addr) == 1);
    memcpy(&portal, &raw, sizeof(raw));
    cr_assert(portal_rule_parse("10.0.0.0/8:5", &rule, NULL) == 0);
    cr_assert(portal_rule_allows(&rule, &portal));
    cr_assert(portal_rule_parse("[::]/0", &rule, NULL) == 0);
    cr_assert(!portal_rule_allows(&rule, &portal));
}

Test(portal, rules_that_are_none)
{
    static const char *const wrong[] = { "", "localhost", "127.0.0.1/33", "127.0.0.1/",
        "127.0.0.1/-1", "127.0.0.1/8/8", "127.0.0.1:0", "127.0.0.1:", "127.0.0.1:1/8",
        "::1", "[::1]/129", "[::ffff:1.2.3.4]/95", "[::ffff:1.2.3.4]/129", "127.1", "*",
        "127.0.0.1 " };
    struct portal_rule rule;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        cr_assert(portal_rule_parse(wrong[i], &rule, NULL) == -EINVAL, "%s", wrong[i]);
}
