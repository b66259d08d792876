/* The login as an initiator sees it: what is let in, and how everything else is refused. */
#include "tests/support/expect.h"

#include <stdio.h>
#include <stdlib.h>

#include "server/iscsi/text.h"
#include "tests/server/iscsi/login_rig.h"

#define RESPONSE                                                                       \
    "CHAP_R=0x8ea1c3b9f232d06d84924f9271c0671a974eab856124df0c9732dd6aae972c4e|"
#define CHALLENGE                                                                      \
    "CHAP_A=8|CHAP_I=39|CHAP_C="                                                       \
    "0x0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20|"
#define THEIRS "CHAP_I=200|CHAP_C=0x030a11181f262d343b424950575e656c737a81888f969da4|"

static struct login_rig rig;

static void setup(void)
{
    rig_start(&rig, LOGIN_OPEN);
}

static void teardown(void)
{
    rig_stop(&rig);
}

TestSuite(login, .init = setup, .fini = teardown);

/** Starts anew. */
static void again(enum login_access access)
{
    rig_stop(&rig);
    rig_start(&rig, access);
}

static void refused(enum login_next next, unsigned status)
{
    expect_eq(next, LOGIN_REFUSED);
    cr_assert(rig_status(&rig) == status, "status %04x, not %04x", rig_status(&rig),
            status);
    expect_eq(rig.answer[0], PDU_LOGIN_RESPONSE);
    expect_eq(rig.answer[1] & 0x80, 0);
    expect_eq(pdu_data_length(rig.answer), 0);
    memcpy(rig.refusal, rig.answer, sizeof rig.refusal);
    expect_eq(rig_send(&rig, OPERATIONAL, ""), LOGIN_DROP); /* it is over */
}

static void goes_on(enum login_next next, unsigned flags, const char *text)
{
    expect_eq(next, LOGIN_GO_ON);
    expect_eq(rig_status(&rig), 0);
    expect_eq(rig.answer[1], flags);
    expect_str(rig.text, text);
}

/* -- let in ------------------------------------------------------------------------------ */

Test(login, one_pdu_is_enough_where_all_is_open)
{
    expect_eq(rig_send(&rig, OPERATIONAL | TO_FULL, INITIATOR TARGET "InitialR2T=No|"),
            LOGIN_FULL_FEATURE);
    expect_str(rig.text, GROUP "InitialR2T=No|" OURS);
    expect_eq(rig.answer[0], 0x23);
    expect_eq(rig.answer[1], 0x87);
    expect_eq(be16_get(rig.answer + 2), 0); /* versions */
    expect_eq(rig.answer[4], 0);
    expect(memcmp(rig.answer + 8, "\x80\x01\x02\x03\x04\x05\x12\x34", 8) == 0);
    expect_eq(pdu_itt(rig.answer), 0x11223344);
    expect_eq(be32_get(rig.answer + 20), 0);
    expect_eq(be32_get(rig.answer + 24), 0xffffffff); /* StatSN, which wraps */
    expect_eq(be32_get(rig.answer + 28), 0xfffffffe);
    expect_eq(be32_get(rig.answer + 32), 0xfffffffe);
    expect_eq(rig_status(&rig), 0);

    expect_eq(rig.result.session, LOGIN_NORMAL);
    expect_str(rig.result.initiator, "iqn.2026-11.org.example:host");
    expect_str(rig.result.target, "iqn.2026-11.org.example:disk");
    expect_str(rig.result.user, "");
    expect(memcmp(rig.result.isid, "\x80\x01\x02\x03\x04\x05", 6) == 0);
    expect_eq(rig.result.cid, 5);
    expect_eq(rig.result.tsih, 0);
    expect_eq(rig.result.cmdsn, 0xfffffffe);
    expect_eq(rig.result.statsn, 0);
    expect_eq(rig.result.terms.receive_max, 262144);
    expect(!rig.result.terms.initial_r2t);
    expect_eq(rig.accesses, 1);
    expect_eq(rig_send(&rig, OPERATIONAL | TO_FULL, ""), LOGIN_DROP);
}

Test(login, from_security_to_full_feature_at_once)
{
    expect_eq(rig_send(&rig, SECURITY | TO_FULL,
                      INITIATOR TARGET "AuthMethod=CHAP,None|"),
            LOGIN_FULL_FEATURE);
    expect_str(rig.text, GROUP "AuthMethod=None|" OURS);
    expect_eq(rig.answer[1], 0x83);
    expect_eq(rig.result.terms.receive_max, 262144);
}

Test(login, stage_by_stage)
{
    goes_on(rig_send(&rig, SECURITY, INITIATOR TARGET), 0x00, GROUP);
    goes_on(rig_send(&rig, SECURITY, "AuthMethod=None|"), 0x00, "AuthMethod=None|");
    goes_on(rig_send(&rig, SECURITY | TO_OPERATIONAL, ""), 0x81, "");
    goes_on(rig_send(&rig, OPERATIONAL, "ImmediateData=Yes|"), 0x04,
            "ImmediateData=Yes|" OURS);
    goes_on(rig_send(&rig, OPERATIONAL, "X-what=1|"), 0x04, "X-what=NotUnderstood|");
    expect_eq(rig_send(&rig, OPERATIONAL | TO_FULL, ""), LOGIN_FULL_FEATURE);
    expect_str(rig.text, "");
    expect_eq(rig.result.statsn, 5);
    expect_eq(be32_get(rig.answer + 24), 4);
}

Test(login, discovery_needs_no_target)
{
    expect_eq(rig_send(&rig, OPERATIONAL | TO_FULL,
                      INITIATOR "MaxBurstLength=512|SessionType=Discovery|"),
            LOGIN_FULL_FEATURE);
    expect_str(rig.text, "MaxBurstLength=Irrelevant|" OURS);
    expect_eq(rig.result.session, LOGIN_DISCOVERY);
    expect_str(rig.asked_target, "");
    again(LOGIN_OPEN); /* named all the same: it means nothing */
    expect_eq(rig_send(&rig, OPERATIONAL | TO_FULL,
                      INITIATOR TARGET "SessionType=Discovery|"),
            LOGIN_FULL_FEATURE);
    expect_str(rig.result.target, "");
    expect_str(rig.asked_target, "");
}

Test(login, names_are_asked_for_in_lower_case)
{
    expect_eq(rig_send(&rig, OPERATIONAL | TO_FULL,
                      "InitiatorName=IQN.2026-11.Org.Example:HOST|TargetName="
                      "iqn.2026-11.ORG.example:Disk|SessionType=Normal|"),
            LOGIN_FULL_FEATURE);
    expect_str(rig.asked_initiator, "iqn.2026-11.org.example:host");
    expect_str(rig.asked_target, "iqn.2026-11.org.example:disk");
    expect_str(login_initiator(rig.login), "iqn.2026-11.org.example:host");
}

/* -- CHAP -------------------------------------------------------------------------------- */

/** Up to our challenge. */
static void challenged(enum login_access access, const char *names)
{
    char text[1000];

    again(access);
    sprintf(text, "%sAuthMethod=CHAP,None|", names);
    goes_on(rig_send(&rig, SECURITY | TO_OPERATIONAL, text), 0x00,
            strstr(names, "Discovery") ? "AuthMethod=CHAP|" : GROUP "AuthMethod=CHAP|");
    goes_on(rig_send(&rig, SECURITY, "CHAP_A=5,8|"), 0x00, CHALLENGE);
}

Test(login, chap_one_way)
{
    challenged(LOGIN_WITH_CHAP, INITIATOR TARGET);
    goes_on(rig_send(&rig, SECURITY | TO_OPERATIONAL, "CHAP_N=host|" RESPONSE), 0x81,
            "");
    expect_eq(rig_send(&rig, OPERATIONAL | TO_FULL, ""), LOGIN_FULL_FEATURE);
    expect_str(rig.text, OURS);
    expect_str(rig.result.user, "host");
    expect_eq(rig.result.chap_algorithm, 8);
    expect_eq(rig.failures, 0);
}

Test(login, chap_mutual)
{
    challenged(LOGIN_WITH_CHAP, INITIATOR TARGET);
    expect_eq(rig_send(&rig, SECURITY | TO_FULL, "CHAP_N=host|" RESPONSE THEIRS),
            LOGIN_FULL_FEATURE);
    expect_str(rig.text,
            "CHAP_N=disk|CHAP_R="
            "0xc2c1a59b2b31d83189be0ddbdd8e2433cac711eb700c51e10f39d0b4930b23"
            "15|" OURS);
}

Test(login, chap_in_a_discovery_session)
{
    challenged(LOGIN_WITH_CHAP, INITIATOR "SessionType=Discovery|");
    expect_eq(rig.users, 0);
    expect_eq(rig_send(&rig, SECURITY | TO_FULL, "CHAP_N=host|" RESPONSE),
            LOGIN_FULL_FEATURE);
    expect_str(rig.result.user, "host");
    expect_eq(rig.users, 1);
    challenged(LOGIN_WITH_CHAP, INITIATOR "SessionType=Discovery|");
    refused(rig_send(&rig, SECURITY | TO_FULL, "CHAP_N=nobody|" RESPONSE), 0x0201);
    expect_eq(rig.failures, 1);
}

Test(login, chap_refuses)
{
    static const struct {
        const char *text;
        unsigned status, failures;
    } rows[] = {
        { "CHAP_N=host|CHAP_R=0x00|", 0x0201, 1 },
        { "CHAP_N=hosts|" RESPONSE, 0x0201, 1 },
        { "CHAP_N=host|" RESPONSE "CHAP_I=1|CHAP_C="
          "0x0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20|",
                0x0201, 1 }, /* reflected */
        { "CHAP_N=host|CHAP_R=0x00|" THEIRS, 0x0201, 1 }, /* no answer before theirs */
        { "CHAP_N=host|" RESPONSE "CHAP_I=1|", 0x0207, 0 },
        { "CHAP_N=host|" RESPONSE "CHAP_C=0x00|", 0x0207, 0 },
        { "CHAP_N=host|", 0x0207, 0 },
        { RESPONSE, 0x0207, 0 },
        { "", 0x0207, 0 },
        { "CHAP_A=5|", 0x0200, 0 },
        { "AuthMethod=None|", 0x0200, 0 },
        { "CHAP_N=host|" RESPONSE "CHAP_N=host|", 0x0200, 0 },
        { "CHAP_N=Reject|" RESPONSE, 0x0200, 0 },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        challenged(LOGIN_WITH_CHAP, INITIATOR TARGET);
        refused(rig_send(&rig, SECURITY | TO_FULL, rows[i].text), rows[i].status);
        expect_eq(rig.failures, rows[i].failures);
    }
}

Test(login, chap_cannot_be_gone_round)
{
    static const struct {
        unsigned flags;
        const char *text;
        unsigned status;
    } rows[] = {
        { OPERATIONAL, INITIATOR TARGET, 0x0201 },
        { OPERATIONAL | TO_FULL, INITIATOR TARGET, 0x0201 },
        { SECURITY | TO_OPERATIONAL, INITIATOR TARGET, 0x0201 },
        { SECURITY | TO_FULL, INITIATOR TARGET, 0x0201 },
        { SECURITY, INITIATOR TARGET "AuthMethod=None|", 0x0201 },
        { SECURITY, INITIATOR TARGET "AuthMethod=KRB5,SRP|", 0x0201 },
        { SECURITY, INITIATOR TARGET "AuthMethod=|", 0x0201 },
        { SECURITY, INITIATOR TARGET "AuthMethod=CHAPS|", 0x0201 },
        { SECURITY, INITIATOR TARGET "AuthMethod=CHAP|CHAP_A=5|", 0x0200 },
        { SECURITY, INITIATOR TARGET "CHAP_A=5|", 0x0200 },
        { SECURITY, INITIATOR TARGET "CHAP_N=host|" RESPONSE, 0x0200 },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        again(LOGIN_WITH_CHAP);
        refused(rig_send(&rig, rows[i].flags, rows[i].text), rows[i].status);
    }
}

Test(login, t_waits_for_chap)
{
    again(LOGIN_WITH_CHAP);
    goes_on(rig_send(&rig, SECURITY, INITIATOR TARGET "AuthMethod=CHAP|"), 0,
            GROUP "AuthMethod=CHAP|");
    goes_on(rig_send(&rig, SECURITY | TO_FULL, "CHAP_A=8|"), 0, CHALLENGE);
    goes_on(rig_send(&rig, SECURITY, "CHAP_N=host|" RESPONSE), 0, "");
    refused(rig_send(&rig, SECURITY | TO_FULL, THEIRS),
            0x0200); /* too late for mutual */
}

Test(login, chap_comes_step_by_step)
{
    again(LOGIN_WITH_CHAP);
    goes_on(rig_send(&rig, SECURITY, INITIATOR TARGET "AuthMethod=CHAP|"), 0,
            GROUP "AuthMethod=CHAP|");
    refused(rig_send(&rig, SECURITY, "CHAP_A=8|CHAP_N=host|"), 0x0200);
}

Test(login, a_burst_below_the_first_burst_that_was_agreed)
{
    goes_on(rig_send(&rig, OPERATIONAL, INITIATOR TARGET "FirstBurstLength=65536|"), 4,
            GROUP "FirstBurstLength=65536|" OURS);
    refused(rig_send(&rig, OPERATIONAL, "MaxBurstLength=4096|"), 0x0200);
}

Test(login, algorithms_that_nobody_has)
{
    again(LOGIN_WITH_CHAP);
    goes_on(rig_send(&rig, SECURITY, INITIATOR TARGET "AuthMethod=CHAP|"), 0,
            GROUP "AuthMethod=CHAP|");
    refused(rig_send(&rig, SECURITY, "CHAP_A=1,2,3,4,9|"), 0x0201);
}

Test(login, who_failed_too_often_waits)
{
    again(LOGIN_WITH_CHAP);
    rig.throttled = true;
    refused(rig_send(&rig, SECURITY, INITIATOR TARGET "AuthMethod=CHAP|"), 0x0201);
    expect_eq(rig.accesses, 0);
    expect_eq(rig.failures, 0);
}

Test(login, an_initiator_that_insists_on_chap_where_there_is_none)
{
    refused(rig_send(&rig, SECURITY, INITIATOR TARGET "AuthMethod=CHAP|"), 0x0201);
}

/* -- refused ----------------------------------------------------------------------------- */

Test(login, first_texts)
{
    static const struct {
        enum login_access access;
        const char *text;
        unsigned status, asked;
    } rows[] = {
        { LOGIN_UNKNOWN_TARGET, INITIATOR TARGET, 0x0203, 1 },
        { LOGIN_FORBIDDEN, INITIATOR TARGET, 0x0202, 1 },
        { (enum login_access)99, INITIATOR TARGET, 0x0202, 1 },
        { LOGIN_FORBIDDEN, INITIATOR "SessionType=Discovery|", 0x0202, 1 },
        { LOGIN_OPEN, "", 0x0207, 0 }, { LOGIN_OPEN, TARGET, 0x0207, 0 },
        { LOGIN_OPEN, INITIATOR, 0x0207, 0 },
        { LOGIN_OPEN, "SessionType=Discovery|", 0x0207, 0 },
        { LOGIN_OPEN, INITIATOR TARGET "SessionType=Other|", 0x0209, 0 },
        { LOGIN_OPEN, INITIATOR TARGET "SessionType=discovery|", 0x0209, 0 },
        { LOGIN_OPEN, "InitiatorName=host|" TARGET, 0x0200, 0 },
        { LOGIN_OPEN, "InitiatorName=|" TARGET, 0x0200, 0 },
        { LOGIN_OPEN, INITIATOR "TargetName=disk|", 0x0203, 0 },
        { LOGIN_OPEN, INITIATOR INITIATOR TARGET, 0x0200, 0 },
        { LOGIN_OPEN, INITIATOR TARGET "TargetAlias=x|", 0x0200, 0 },
        { LOGIN_OPEN, INITIATOR TARGET "MaxRecvDataSegmentLength=0|", 0x0200, 0 },
        { LOGIN_OPEN, INITIATOR TARGET "no pair|", 0x0200, 0 },
        { LOGIN_OPEN, INITIATOR TARGET "Unended=1", 0x0200, 0 },
        { LOGIN_OPEN, INITIATOR TARGET "AuthMethod=None|", 0x0200,
                0 }, /* not its stage */
    };

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        again(rows[i].access);
        refused(rig_send(&rig, OPERATIONAL | TO_FULL, rows[i].text), rows[i].status);
        cr_assert(rig.accesses == rows[i].asked, "row %u", i);
    }
}

Test(login, names_never_change)
{
    static const char *const texts[] = { INITIATOR, TARGET, "SessionType=Normal|",
        "InitiatorName=iqn.2026-11.org.example:other|" };

    for (unsigned i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        again(LOGIN_OPEN);
        goes_on(rig_send(&rig, OPERATIONAL, INITIATOR TARGET), 0x04, GROUP OURS);
        refused(rig_send(&rig, OPERATIONAL, texts[i]), 0x0200);
        expect_eq(rig.accesses, 1);
    }
}

Test(login, the_header_never_changes)
{
    static const struct {
        unsigned at, status;
    } rows[] = { { 2, 0x0200 }, { 3, 0x0205 }, { 8, 0x0200 }, { 13, 0x0200 },
        { 14, 0x0200 }, { 15, 0x0200 }, { 20, 0x0200 }, { 21, 0x0200 } };

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        again(LOGIN_OPEN);
        goes_on(rig_send(&rig, OPERATIONAL, INITIATOR TARGET), 0x04, GROUP OURS);
        rig.bhs[rows[i].at] ^= 1;
        refused(rig_send(&rig, OPERATIONAL | TO_FULL, ""), rows[i].status);
    }
}

Test(login, first_headers)
{
    static const struct {
        unsigned at;
        uint8_t value;
        unsigned status;
    } rows[] = { { 0, 0x03, 0x0200 }, { 3, 1, 0x0205 }, { 4, 1, 0x0200 },
        { 14, 1, 0x020a }, { 15, 1, 0x020a } };

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        again(LOGIN_OPEN);
        rig.bhs[rows[i].at] = rows[i].value;
        refused(rig_send(&rig, OPERATIONAL | TO_FULL, INITIATOR TARGET),
                rows[i].status);
        expect_eq(rig.accesses, 0);
    }
    again(LOGIN_OPEN); /* it speaks more than we do, but ours too */
    rig.bhs[2] = 3;
    expect_eq(rig_send(&rig, OPERATIONAL | TO_FULL, INITIATOR TARGET),
            LOGIN_FULL_FEATURE);
    expect_eq(be16_get(rig.answer + 2), 0);
}

Test(login, a_length_that_was_not_read_is_refused)
{
    static uint8_t bytes[LOGIN_DATA_MAX + 1];

    be24_put(rig.bhs + 5, 9000);
    rig.bhs[1] = OPERATIONAL;
    expect_eq(login_step(rig.login, rig.bhs, NULL, 0, 1, rig.answer, rig.data,
                      &rig.result),
            LOGIN_REFUSED);
    expect_eq(rig_status(&rig), 0x0200);
    again(LOGIN_OPEN);
    refused(rig_send_bytes(&rig, OPERATIONAL, bytes, sizeof bytes), 0x0200);
}

/* -- stages: every state x every T, C, CSG, NSG ------------------------------------------ */

enum where { AT_START, IN_SECURITY, IN_OPERATIONAL };

static void bring_to(enum where where)
{
    again(LOGIN_OPEN);
    if (where != AT_START)
        expect_eq(rig_send(&rig, where == IN_SECURITY ? SECURITY : OPERATIONAL,
                          INITIATOR TARGET),
                LOGIN_GO_ON);
}

Test(login, every_stage_and_every_flag)
{
    unsigned good = 0;

    for (unsigned where = AT_START; where <= IN_OPERATIONAL; where++)
        for (unsigned flags = 0; flags < 256; flags++) {
            bool t = flags & 0x80, c = flags & 0x40;
            unsigned csg = flags >> 2 & 3, nsg = flags & 3;
            bool csg_good =
                    where == AT_START ? csg <= 1 : csg == (where == IN_OPERATIONAL);
            bool t_good = !t || (!c && nsg > csg && nsg != 2);
            enum login_next next;

            bring_to((enum where)where);
            next = rig_send(&rig, flags, where == AT_START ? INITIATOR TARGET : "");
            if (!csg_good || !t_good) {
                refused(next, 0x0200);
                continue;
            }
            good++;
            expect_eq(next, t && nsg == 3 ? LOGIN_FULL_FEATURE : LOGIN_GO_ON);
            /* our own stage, and NSG only where T is granted */
            expect_eq(rig.answer[1], (t ? 0x80 | nsg : 0) | csg << 2);
        }
    /* the two reserved bits are ignored: 4 times (C or not, NSG any: 8; T: 2, 1) */
    expect_eq(good, 4 * ((8 + 2 + 8 + 1) + (8 + 2) + (8 + 1)));
}

Test(login, every_state_and_every_opcode)
{
    for (unsigned where = AT_START; where <= IN_OPERATIONAL; where++)
        for (unsigned opcode = 0; opcode < 128; opcode++) {
            enum login_next next;

            if (opcode == (0x40 | PDU_LOGIN))
                continue;
            bring_to((enum where)where);
            rig.bhs[0] = (uint8_t)opcode;
            next = rig_send(&rig, where == IN_OPERATIONAL ? OPERATIONAL : SECURITY,
                    where == AT_START ? INITIATOR TARGET : "");
            if (opcode == PDU_LOGIN) { /* not immediate */
                refused(next, 0x0200);
            } else if (where == AT_START) {
                expect_eq(next, LOGIN_DROP);
                expect_eq(rig.accesses, 0);
            } else {
                refused(next, 0x020b);
            }
        }
}

Test(login, every_opcode_after_the_end)
{
    for (unsigned over = 0; over < 2; over++)
        for (unsigned opcode = 0; opcode < 128; opcode++) {
            again(LOGIN_OPEN);
            (void)rig_send(&rig, OPERATIONAL | TO_FULL, over ? "" : INITIATOR TARGET);
            rig.bhs[0] = (uint8_t)opcode;
            expect_eq(rig_send(&rig, OPERATIONAL | TO_FULL, ""), LOGIN_DROP);
        }
}

/* -- pieces and floods ------------------------------------------------------------------- */

Test(login, a_text_in_pieces)
{
    static const char text[] = INITIATOR TARGET "MaxBurstLength=4096|";
    size_t length = strlen(text);

    for (size_t first = 0; first <= length; first++) { /* cut anywhere, in a pair too */
        char piece[200] = "";

        again(LOGIN_OPEN);
        memcpy(piece, text, first);
        goes_on(rig_send(&rig, OPERATIONAL | MORE, piece), 0x04, "");
        expect_eq(rig.accesses, 0);
        expect_eq(rig_send(&rig, OPERATIONAL | TO_FULL, text + first),
                LOGIN_FULL_FEATURE);
        expect_str(rig.text, GROUP "MaxBurstLength=4096|" OURS);
    }
}

Test(login, an_answer_in_pieces)
{
    char text[4000] = INITIATOR TARGET "MaxRecvDataSegmentLength=512|",
         whole[8192] = "";
    char wanted[8192] = GROUP, *at = text + strlen(text);
    unsigned pdus = 1;

    for (int i = 0; i < 30; i++) {
        at += sprintf(at, "X-org.example.an-unknown-key-of-some-length-%d=1|", i);
        sprintf(wanted + strlen(wanted),
                "X-org.example.an-unknown-key-of-some-length-%d=NotUnderstood|", i);
    }
    strcat(wanted, OURS);
    expect_eq(rig_send(&rig, OPERATIONAL | TO_FULL, text), LOGIN_GO_ON);
    for (;;) {
        strcat(whole, rig.text);
        if (!(rig.answer[1] & 0x40))
            break;
        expect_eq(rig.answer[1], 0x44);
        expect_eq(pdu_data_length(rig.answer), 512);
        (void)rig_send(&rig, OPERATIONAL | TO_FULL, "");
        pdus++;
    }
    expect_eq(rig.answer[1], 0x87);
    expect_str(whole, wanted);
    expect_eq(pdus, (strlen(wanted) + 511) / 512);
    expect_eq(rig.result.terms.send_max, 512);
}

Test(login, pieces_of_ours_are_asked_for_with_nothing)
{
    static const struct {
        unsigned flags;
        const char *text;
    } rows[] = { { OPERATIONAL, "ImmediateData=No|" }, { OPERATIONAL | MORE, "" },
        { OPERATIONAL, "|" } };
    char text[4000];

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *at =
                text + sprintf(text, INITIATOR TARGET "MaxRecvDataSegmentLength=512|");

        for (int key = 0; key < 30; key++)
            at += sprintf(at, "X-org.example.an-unknown-key-%d=1|", key);
        again(LOGIN_OPEN);
        expect_eq(rig_send(&rig, OPERATIONAL, text), LOGIN_GO_ON);
        expect_eq(rig.answer[1], 0x44);
        refused(rig_send(&rig, rows[i].flags, rows[i].text), 0x0200);
    }
}

Test(login, sixteen_pdus_and_no_more)
{
    (void)rig_send(&rig, OPERATIONAL, INITIATOR TARGET);
    for (int i = 1; i < LOGIN_PDUS_MAX; i++)
        goes_on(rig_send(&rig, OPERATIONAL, ""), 0x04, "");
    refused(rig_send(&rig, OPERATIONAL | TO_FULL, ""), 0x0200);
    again(LOGIN_OPEN); /* the same in empty pieces */
    for (int i = 0; i < LOGIN_PDUS_MAX; i++)
        goes_on(rig_send(&rig, SECURITY | MORE, ""), 0, "");
    refused(rig_send(&rig, SECURITY | MORE, ""), 0x0200);
}

Test(login, sixteen_kibibytes_and_no_more)
{
    static uint8_t bytes[LOGIN_DATA_MAX]; /* NULs: they are text, of no pairs */

    goes_on(rig_send_bytes(&rig, OPERATIONAL | MORE, bytes, sizeof bytes), 4, "");
    goes_on(rig_send_bytes(&rig, OPERATIONAL | MORE, bytes, sizeof bytes), 4, "");
    refused(rig_send_bytes(&rig, OPERATIONAL | MORE, bytes, 1), 0x0200);
}

Test(login, sixty_four_keys_in_all)
{
    char text[2000], *at;

    for (int each = 31; each <= 32; each++) { /* twice, beside the two names */
        again(LOGIN_OPEN);
        expect_eq(rig_send(&rig, OPERATIONAL, INITIATOR TARGET), LOGIN_GO_ON);
        at = text;
        for (int i = 0; i < 31; i++)
            at += sprintf(at, "X-a%d=1|", i);
        expect_eq(rig_send(&rig, OPERATIONAL, text), LOGIN_GO_ON);
        at = text;
        for (int i = 0; i < each; i++)
            at += sprintf(at, "X-b%d=1|", i);
        if (each == 31)
            expect_eq(rig_send(&rig, OPERATIONAL, text), LOGIN_GO_ON);
        else
            refused(rig_send(&rig, OPERATIONAL, text), 0x0200);
    }
}

Test(login, the_longest_answer_fits)
{
    char text[12000] = INITIATOR TARGET, *at = text + strlen(text);

    for (int i = 0; i < 62;
            i++) { /* 63 letters each: CVE-2013-2850 was such an answer */
        memset(at, 'X', 61);
        at += 61;
        at += sprintf(at, "%02d=1|", i);
    }
    expect_eq(rig_send(&rig, OPERATIONAL | TO_FULL, text), LOGIN_FULL_FEATURE);
    expect(strlen(rig.text) > 62 * (63 + 14));
}

Test(login, a_zero_length_data_pointer_may_be_null)
{
    goes_on(rig_send_bytes(&rig, OPERATIONAL | MORE, NULL, 0), 4, "");
}

/* -- text in full feature phase ---------------------------------------------------------- */

/** The answer with '|' for NUL, or "!"; behind it what is to be listed: "<name>", "<>" all. */
static const char *ask(enum login_session session, const char *text, size_t room,
        struct login_terms *terms)
{
    static char answer[1000];
    struct login_list list;
    char bytes[1000];
    int length;

    strcpy(bytes, text);
    for (char *at = bytes; *at; at++)
        if (*at == '|')
            *at = 0;
    length = login_text((uint8_t *)bytes, strlen(text), session,
            session == LOGIN_NORMAL ? "iqn.2026-11.org.example:b" : "", terms, &list,
            (uint8_t *)answer, room);
    if (length < 0)
        return "!";
    for (int i = 0; i < length; i++)
        if (!answer[i])
            answer[i] = '|';
    answer[length] = 0;
    if (list.wanted)
        sprintf(answer + length, "<%s>", list.name);
    return answer;
}

#define LIST_A "<iqn.2026-11.org.example:a>"
#define LIST_B "<iqn.2026-11.org.example:b>"

Test(targets, are_told_as_appendix_c_says)
{
    static const struct {
        const char *text, *discovery, *normal;
    } rows[] = {
        { "SendTargets=All|", "<>", "SendTargets=Reject|" },
        { "SendTargets=|", "SendTargets=Reject|", LIST_B },
        { "SendTargets=iqn.2026-11.org.example:B|", LIST_B, LIST_B },
        { "SendTargets=iqn.2026-11.org.example:a|", LIST_A, "" },
        { "SendTargets=iqn.2026-11.org.example:c|", "<iqn.2026-11.org.example:c>", "" },
        { "X-a=1|SendTargets=All|", "X-a=NotUnderstood|<>",
                "X-a=NotUnderstood|SendTargets=Reject|" },
        { "SendTargets=all|", "SendTargets=Reject|", "SendTargets=Reject|" },
        { "", "", "" },
        { "InitiatorAlias=me|", "", "" },
        { "X-a=1|HeaderDigest=None|", "X-a=NotUnderstood|HeaderDigest=Reject|",
                "X-a=NotUnderstood|HeaderDigest=Reject|" },
        { "SendTargets=All", "!", "!" },
        { "SendTargets=All|SendTargets=All|", "!", "!" },
        { "TargetAddress=1.2.3.4|", "!", "!" },
        { "MaxRecvDataSegmentLength=511|", "!", "!" },
    };
    struct login_terms terms = { .send_max = 1 };

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        expect_str(ask(LOGIN_DISCOVERY, rows[i].text, 999, &terms), rows[i].discovery);
        expect_str(ask(LOGIN_NORMAL, rows[i].text, 999, &terms), rows[i].normal);
    }
    expect_eq(terms.send_max, 1);
    expect_str(ask(LOGIN_NORMAL, "MaxRecvDataSegmentLength=512|", 999, &terms), "");
    expect_eq(terms.send_max, 512);
}

Test(targets, an_answer_fits_or_is_none)
{
    static const char said[] = "X-a=NotUnderstood|HeaderDigest=Reject|";
    struct login_terms terms = { .send_max = 1 };
    size_t length = strlen(said);

    expect_str(ask(LOGIN_DISCOVERY, "X-a=1|HeaderDigest=None|", length, &terms), said);
    for (size_t room = 0; room < length; room++)
        expect_str(ask(LOGIN_DISCOVERY, "X-a=1|HeaderDigest=None|", room, &terms), "!");
}

/* What a normal session has for an answer is 8 KiB: nothing that it may ask needs more. */
Test(targets, the_longest_answer_fits_a_small_buffer)
{
    static char text[8192], answer[8192];
    struct login_terms terms = { .send_max = 1 };
    struct login_list list;
    size_t length = 0;

    for (int i = 0; i < TEXT_PAIRS_MAX - 1; i++)
        length += (size_t)sprintf(text + length, "X-%061d=1", i) + 1;
    length += (size_t)sprintf(text + length, "SendTargets=") + 1;
    expect(login_text((uint8_t *)text, length, LOGIN_NORMAL,
                   "iqn.2026-11.org.example:b", &terms, &list, (uint8_t *)answer,
                   sizeof answer) > 0);
    expect(list.wanted);
}
