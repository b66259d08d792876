/* What a login agreed on, as the target's answer tells it. */
#include <criterion/criterion.h>
#include <string.h>

#include "replica/block/iscsi_terms.h"
#include "tests/support/seed.h"

static size_t login_pdu(uint8_t *pdu, const char *text, size_t length)
{
    memset(pdu, 0, TERMS_HEADER);
    pdu[0] = 0x23;
    pdu[1] = 0x87;
    pdu[6] = (uint8_t)(length >> 8);
    pdu[7] = (uint8_t)length;
    pdu[27] = 6;
    pdu[31] = 8;
    pdu[35] = 9;
    memcpy(pdu + TERMS_HEADER, text, length);
    return terms_pdu_length(pdu);
}

static int login_says(struct login_terms *terms, const char *text, size_t length)
{
    uint8_t pdu[1024] = { 0 };
    size_t size = login_pdu(pdu, text, length);

    terms_init(terms);
    return terms_take(terms, pdu, size);
}

#define SAYS(terms, text) login_says(terms, text, sizeof(text))

Test(wire_terms, are_what_the_target_says)
{
    struct login_terms terms;

    cr_assert_eq(SAYS(&terms,
                         "HeaderDigest=None\0DataDigest=None\0InitialR2T=No\0"
                         "ImmediateData=No\0MaxRecvDataSegmentLength=0x4001\0"
                         "FirstBurstLength=1024\0MaxBurstLength=2048\0X=Y"),
            0);
    cr_assert(terms.told && !terms.initial_r2t && !terms.immediate);
    cr_assert_eq(terms.segment, 0x4000);
    cr_assert(terms.first_burst == 1024 && terms.max_burst == 2048);
    cr_assert(terms.exp_stat_sn == 7 && terms.cmd_sn == 8 && terms.max_cmd_sn == 9);
    cr_assert_eq(SAYS(&terms, "FirstBurstLength=16777215\0MaxBurstLength=16777215"), 0);
    cr_assert(terms.first_burst == TERMS_SEGMENT && terms.max_burst == TERMS_SEGMENT);
    cr_assert(terms.segment == 8192 && terms.initial_r2t && terms.immediate);
}

Test(wire_terms, that_cannot_be_are_refused)
{
    struct login_terms terms;

    cr_assert(SAYS(&terms, "MaxRecvDataSegmentLength=0") < 0);
    cr_assert(SAYS(&terms, "MaxRecvDataSegmentLength=511") < 0);
    cr_assert(SAYS(&terms, "MaxBurstLength=16777216") < 0);
    cr_assert(SAYS(&terms, "FirstBurstLength=12x") < 0);
    cr_assert(SAYS(&terms, "FirstBurstLength=") < 0);
    cr_assert(SAYS(&terms, "HeaderDigest=CRC32C") < 0);
    cr_assert(SAYS(&terms, "DataDigest=CRC32C") < 0);
    cr_assert(login_says(&terms, "MaxBurstLength=1024", 19) == 0, "without its NUL");
}

Test(wire_terms, noise_is_survived)
{
    uint64_t seed = seed_take("terms");
    struct login_terms terms;
    uint8_t pdu[1400];

    for (int i = 0; i < 20000; i++) {
        seed_fill(&seed, pdu, sizeof(pdu));
        pdu[0] = 0x23;
        pdu[4] = (uint8_t)seed_below(&seed, 3);
        pdu[5] = pdu[6] = 0;
        cr_assert(terms_pdu_length(pdu) <= sizeof(pdu));
        terms_init(&terms);
        (void)terms_take(&terms, pdu, terms_pdu_length(pdu));
    }
}
