/* The keys, against a second table written from RFC 7143 sections 12 and 13. */
#include "tests/support/expect.h"

#include <stdio.h>

#include "server/iscsi/negotiate.h"

enum {
    SEC = NEGOTIATION_SECURITY,
    OP = NEGOTIATION_OPERATIONAL,
    FULL = NEGOTIATION_FULL_FEATURE
};

/** What answers "@key=@value": "!" a violation, "" nothing, "?" left to the login. */
static const char *answer_in(
        struct negotiation *negotiation, int stage, const char *key, const char *value)
{
    static uint8_t bytes[1000];
    static char text[1000];
    struct text_writer writer = { .at = (uint8_t *)text, .room = sizeof text };
    struct text_pair pairs[TEXT_PAIRS_MAX];
    int length = sprintf((char *)bytes, "%s=%s", key, value) + 1;
    enum negotiation_verdict verdict;

    expect_eq(text_read(bytes, (size_t)length, pairs), 1);
    verdict = negotiation_offer(negotiation, (enum negotiation_stage)stage, pairs);
    if (verdict == NEGOTIATION_VIOLATION)
        return "!";
    if (verdict == NEGOTIATION_WORD)
        return "?";
    if (!negotiation_settle(negotiation))
        return "!";
    text[0] = 0;
    negotiation_answer(negotiation, pairs, verdict, &writer);
    if (writer.length == 0)
        return "";
    expect(strncmp(text, key, strlen(key)) == 0 && text[strlen(key)] == '=');
    expect_eq(writer.length, strlen(text) + 1);
    return text + strlen(key) + 1;
}

static const char *answer(int stage, bool discovery, const char *key, const char *value)
{
    struct negotiation negotiation;

    negotiation_start(&negotiation);
    negotiation.discovery = discovery;
    return answer_in(&negotiation, stage, key, value);
}

/* Name, and what answers a value that every initiator may send, in each stage and in the
 * operational stage of a discovery session. */
static const struct {
    const char *key, *value, *security, *operational, *full, *discovery;
} places[] = {
    { "AuthMethod", "CHAP,None", "?", "!", "Reject", "!" },
    { "KRB_AP_REQ", "x", "!", "!", "Reject", "!" },
    { "KRB_AP_REP", "x", "!", "!", "Reject", "!" },
    { "SRP_U", "x", "!", "!", "Reject", "!" },
    { "TargetAuth", "Yes", "!", "!", "Reject", "!" },
    { "SRP_GROUP", "x", "!", "!", "Reject", "!" },
    { "SRP_N", "x", "!", "!", "Reject", "!" },
    { "SRP_g", "x", "!", "!", "Reject", "!" },
    { "SRP_s", "x", "!", "!", "Reject", "!" },
    { "SRP_A", "x", "!", "!", "Reject", "!" },
    { "SRP_B", "x", "!", "!", "Reject", "!" },
    { "SRP_M", "x", "!", "!", "Reject", "!" },
    { "SRP_HM", "x", "!", "!", "Reject", "!" },
    { "CHAP_A", "5", "?", "!", "Reject", "!" },
    { "CHAP_I", "5", "?", "!", "Reject", "!" },
    { "CHAP_C", "0x01", "?", "!", "Reject", "!" },
    { "CHAP_N", "x", "?", "!", "Reject", "!" },
    { "CHAP_R", "0x01", "?", "!", "Reject", "!" },
    { "HeaderDigest", "None", "!", "None", "Reject", "None" },
    { "DataDigest", "None", "!", "None", "Reject", "None" },
    { "MaxConnections", "1", "!", "1", "Reject", "Irrelevant" },
    { "SendTargets", "All", "Reject", "Reject", "?", "Reject" },
    { "TargetName", "iqn.x", "?", "?", "Reject", "?" },
    { "InitiatorName", "iqn.x", "?", "?", "Reject", "?" },
    { "TargetAlias", "x", "!", "!", "!", "!" },
    { "InitiatorAlias", "x", "", "", "", "" },
    { "TargetAddress", "x", "!", "!", "!", "!" },
    { "TargetPortalGroupTag", "1", "!", "!", "!", "!" },
    { "InitialR2T", "Yes", "!", "Yes", "Reject", "Irrelevant" },
    { "ImmediateData", "Yes", "!", "Yes", "Reject", "Irrelevant" },
    { "MaxRecvDataSegmentLength", "8192", "", "", "", "" },
    { "MaxBurstLength", "262144", "!", "262144", "Reject", "Irrelevant" },
    { "FirstBurstLength", "65536", "!", "65536", "Reject", "Irrelevant" },
    { "DefaultTime2Wait", "2", "!", "2", "Reject", "2" },
    { "DefaultTime2Retain", "20", "!", "0", "Reject", "0" },
    { "MaxOutstandingR2T", "1", "!", "1", "Reject", "Irrelevant" },
    { "DataPDUInOrder", "Yes", "!", "Yes", "Reject", "Irrelevant" },
    { "DataSequenceInOrder", "Yes", "!", "Yes", "Reject", "Irrelevant" },
    { "ErrorRecoveryLevel", "0", "!", "0", "Reject", "0" },
    { "SessionType", "Normal", "?", "?", "Reject", "?" },
    { "TaskReporting", "RFC3720", "!", "RFC3720", "Reject", "Irrelevant" },
    { "iSCSIProtocolLevel", "1", "!", "1", "Reject", "Irrelevant" },
    { "IFMarker", "No", "!", "No", "Reject", "No" },
    { "OFMarker", "No", "!", "No", "Reject", "No" },
    { "IFMarkInt", "2048~65535", "!", "Reject", "Reject", "Reject" },
    { "OFMarkInt", "2048~65535", "!", "Reject", "Reject", "Reject" },
    { "X#NodeArchitecture", "x", "", "", "Reject", "" },
    { "X-org.example.key", "x", "NotUnderstood", "NotUnderstood", "NotUnderstood",
            "NotUnderstood" },
    { "initialR2T", "Yes", "NotUnderstood", "NotUnderstood", "NotUnderstood",
            "NotUnderstood" },
    { "RDMAExtensions", "Yes", "NotUnderstood", "NotUnderstood", "NotUnderstood",
            "NotUnderstood" },
};

Test(keys, every_key_has_its_place)
{
    unsigned known = 0;

    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
        const char *key = places[i].key, *value = places[i].value;

        cr_assert(
                !strcmp(answer(SEC, false, key, value), places[i].security), "%s", key);
        cr_assert(!strcmp(answer(OP, false, key, value), places[i].operational),
                "%s: %s", key, answer(OP, false, key, value));
        cr_assert(!strcmp(answer(FULL, false, key, value), places[i].full), "%s", key);
        cr_assert(
                !strcmp(answer(OP, true, key, value), places[i].discovery), "%s", key);
        known += strcmp(places[i].security, "NotUnderstood") != 0;
    }
    expect_eq(known, KEY_COUNT); /* no row of ours without one here */
}

/* Values of the keys that are negotiated, each offered alone. */
static const struct {
    const char *key, *value, *answer;
} values[] = {
    { "HeaderDigest", "CRC32C", "CRC32C" },
    { "HeaderDigest", "CRC32C,None", "CRC32C" },
    { "HeaderDigest", "None,CRC32C", "None" },
    { "HeaderDigest", "x,CRC32C", "CRC32C" },
    { "HeaderDigest", "x,y", "Reject" },
    { "HeaderDigest", "", "Reject" },
    { "HeaderDigest", "crc32c", "Reject" },
    { "HeaderDigest", "CRC32", "Reject" },
    { "HeaderDigest", "CRC32CC", "Reject" },
    { "HeaderDigest", "CRC32C ,None", "None" },
    { "DataDigest", "CRC32C,None", "CRC32C" },
    { "DataDigest", "None", "None" },
    { "DataDigest", "CRC64", "Reject" },
    { "MaxConnections", "8", "1" },
    { "MaxConnections", "65535", "1" },
    { "MaxConnections", "0", "Reject" },
    { "MaxConnections", "65536", "Reject" },
    { "InitialR2T", "No", "No" },
    { "InitialR2T", "yes", "Reject" },
    { "InitialR2T", "", "Reject" },
    { "InitialR2T", "Yes,No", "Reject" },
    { "ImmediateData", "No", "No" },
    { "ImmediateData", "1", "Reject" },
    { "MaxRecvDataSegmentLength", "512", "" },
    { "MaxRecvDataSegmentLength", "0", "!" },
    { "MaxRecvDataSegmentLength", "511", "!" },
    { "MaxRecvDataSegmentLength", "16777215", "" },
    { "MaxRecvDataSegmentLength", "16777216", "!" },
    { "MaxRecvDataSegmentLength", "-1", "!" },
    { "MaxRecvDataSegmentLength", "8k", "!" },
    { "MaxRecvDataSegmentLength", "4294967808", "!" },
    { "MaxRecvDataSegmentLength", "0x2000", "" },
    { "MaxBurstLength", "512", "512" },
    { "MaxBurstLength", "511", "Reject" },
    { "MaxBurstLength", "16777215", "262144" },
    { "MaxBurstLength", "0x1000", "4096" },
    { "MaxBurstLength", "16777216", "Reject" },
    { "MaxBurstLength", "", "Reject" },
    { "FirstBurstLength", "262145", "262144" },
    { "FirstBurstLength", "512", "512" },
    { "FirstBurstLength", "511", "Reject" },
    { "FirstBurstLength", "16777216", "Reject" },
    { "DefaultTime2Wait", "0", "0" },
    { "DefaultTime2Wait", "3600", "3600" },
    { "DefaultTime2Wait", "3601", "Reject" },
    { "DefaultTime2Retain", "3600", "0" },
    { "DefaultTime2Retain", "3601", "Reject" },
    { "MaxOutstandingR2T", "65535", "8" },
    { "MaxOutstandingR2T", "3", "3" },
    { "MaxOutstandingR2T", "0", "Reject" },
    { "MaxOutstandingR2T", "65536", "Reject" },
    { "DataPDUInOrder", "No", "Yes" },
    { "DataSequenceInOrder", "No", "Yes" },
    { "ErrorRecoveryLevel", "2", "0" },
    { "ErrorRecoveryLevel", "3", "Reject" },
    { "TaskReporting", "FastAbort", "Reject" },
    { "TaskReporting", "ResponseFence,RFC3720", "RFC3720" },
    { "iSCSIProtocolLevel", "31", "1" },
    { "iSCSIProtocolLevel", "0", "0" },
    { "iSCSIProtocolLevel", "32", "Reject" },
    { "IFMarker", "Yes", "No" },
    { "OFMarker", "maybe", "Reject" },
    /* answers to what nobody asked */
    { "MaxBurstLength", "Reject", "!" },
    { "HeaderDigest", "NotUnderstood", "!" },
    { "InitialR2T", "Irrelevant", "!" },
    { "MaxRecvDataSegmentLength", "Reject", "!" },
    { "TargetPortalGroupTag", "NotUnderstood", "" },
    { "TargetAlias", "Irrelevant", "" },
};

Test(keys, offers_combine_as_the_table_says)
{
    for (unsigned i = 0; i < sizeof values / sizeof values[0]; i++) {
        const char *said = answer(OP, false, values[i].key, values[i].value);

        cr_assert(strcmp(said, values[i].answer) == 0, "%s=%s is answered %s, not %s",
                values[i].key, values[i].value, said, values[i].answer);
    }
}

static struct login_terms terms_of(const struct negotiation *negotiation, bool declared)
{
    struct login_terms terms;

    memset(&terms, 0xa5, sizeof terms);
    negotiation_terms(negotiation, declared, &terms);
    return terms;
}

Test(keys, silence_is_the_default)
{
    struct negotiation negotiation;
    struct login_terms terms;

    negotiation_start(&negotiation);
    terms = terms_of(&negotiation, false);
    expect(!terms.header_digest && !terms.data_digest);
    expect(terms.initial_r2t && terms.immediate_data);
    expect_eq(terms.send_max, 8192);
    expect_eq(terms.receive_max, 8192);
    expect_eq(terms.max_burst, 262144);
    expect_eq(terms.first_burst, 65536);
    expect_eq(terms.max_outstanding_r2t, 1);
    expect_eq(terms.time2wait, 2);
    expect_eq(terms.time2retain, 20);
    expect(terms.data_pdu_in_order && terms.data_sequence_in_order);
    expect_eq(terms.error_recovery_level, 0);
    expect_eq(terms_of(&negotiation, true).receive_max, 262144);
}

Test(keys, what_is_agreed_is_what_holds)
{
    static const struct {
        const char *key, *value;
    } offers[] = {
        { "HeaderDigest", "CRC32C,None" },
        { "DataDigest", "CRC32C" },
        { "InitialR2T", "No" },
        { "ImmediateData", "No" },
        { "MaxRecvDataSegmentLength", "4096" },
        { "MaxBurstLength", "131072" },
        { "FirstBurstLength", "32768" },
        { "MaxOutstandingR2T", "4" },
        { "DefaultTime2Wait", "7" },
        { "DefaultTime2Retain", "9" },
    };
    struct negotiation negotiation;
    struct login_terms terms;

    negotiation_start(&negotiation);
    for (unsigned i = 0; i < sizeof offers / sizeof offers[0]; i++)
        (void)answer_in(&negotiation, OP, offers[i].key, offers[i].value);
    terms = terms_of(&negotiation, true);
    expect(terms.header_digest && terms.data_digest);
    expect(!terms.initial_r2t && !terms.immediate_data);
    expect_eq(terms.send_max, 4096);
    expect_eq(terms.max_burst, 131072);
    expect_eq(terms.first_burst, 32768);
    expect_eq(terms.max_outstanding_r2t, 4);
    expect_eq(terms.time2wait, 7);
    expect_eq(terms.time2retain, 0);
}

Test(keys, a_rejected_value_changes_nothing)
{
    struct negotiation negotiation;

    negotiation_start(&negotiation);
    expect_str(answer_in(&negotiation, OP, "MaxBurstLength", "1"), "Reject");
    expect_str(answer_in(&negotiation, OP, "HeaderDigest", "MD5"), "Reject");
    expect_eq(terms_of(&negotiation, true).max_burst, 262144);
    expect(!terms_of(&negotiation, true).header_digest);
}

Test(keys, no_key_is_said_twice)
{
    struct negotiation negotiation;

    for (int i = 0; i < KEY_COUNT; i++) {
        const char *key = negotiation_key_name((enum login_key)i), *first;

        for (int stage = SEC; stage <= OP; stage++) {
            negotiation_start(&negotiation);
            first = answer_in(&negotiation, stage, key, "1");
            if (strcmp(first, "!") != 0 && i != KEY_SEND_TARGETS)
                cr_assert(!strcmp(answer_in(&negotiation, stage, key, "1"), "!"), "%s",
                        key);
        }
    }
}

Test(keys, a_first_burst_fits_the_burst)
{
    struct negotiation negotiation;

    negotiation_start(&negotiation);
    expect_str(answer_in(&negotiation, OP, "MaxBurstLength", "4096"), "4096");
    expect_eq(terms_of(&negotiation, true).first_burst, 4096);
    expect_str(answer_in(&negotiation, OP, "FirstBurstLength", "65536"), "4096");

    negotiation_start(&negotiation); /* agreed before: now it contradicts itself */
    expect_str(answer_in(&negotiation, OP, "FirstBurstLength", "65536"), "65536");
    expect_str(answer_in(&negotiation, OP, "MaxBurstLength", "4096"), "!");
}

Test(keys, without_data_of_its_own_accord_there_is_no_first_burst)
{
    struct negotiation negotiation;

    negotiation_start(&negotiation);
    expect_str(answer_in(&negotiation, OP, "ImmediateData", "No"), "No");
    expect_str(answer_in(&negotiation, OP, "FirstBurstLength", "65536"), "Irrelevant");
    negotiation_start(&negotiation);
    expect_str(answer_in(&negotiation, OP, "ImmediateData", "No"), "No");
    expect_str(answer_in(&negotiation, OP, "InitialR2T", "No"), "No");
    expect_str(answer_in(&negotiation, OP, "FirstBurstLength", "65536"), "65536");
}
