/* A stream of PDUs, framed as a connection frames it: judged, then read on by its lengths. */
#include "server/iscsi/pdu.h"

#include "tests/support/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/** What a verdict promises to who reads on. */
static void verdict_check(const uint8_t *bhs, const struct pdu_limits *limits,
        enum pdu_fault fault, enum pdu_reject reason)
{
    if (fault == PDU_FINE) {
        must(reason == 0);
        must(pdu_opcode(bhs) <= PDU_LOGOUT && pdu_opcode(bhs) != PDU_LOGIN);
    } else {
        must(reason >= PDU_REJECT_DATA_DIGEST && reason <= PDU_REJECT_WAITING_LOGOUT);
    }
    if (fault == PDU_DROP)
        return;
    must(pdu_data_length(bhs) <= limits->data_max);
    must(pdu_data_padded(bhs) - pdu_data_length(bhs) < 4);
    must(pdu_ahs_length(bhs) == 0);
    must(!limits->discovery || pdu_opcode(bhs) == PDU_NOP_OUT ||
            pdu_opcode(bhs) == PDU_TEXT || pdu_opcode(bhs) == PDU_LOGOUT);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct pdu_limits limits = { .data_max = 262144 };

    if (length == 0)
        return 0;
    limits.discovery = bytes[0] & 1;
    limits.data_max = bytes[0] & 2 ? 512 : 262144;
    for (size_t at = 1; length - at >= PDU_HEADER;) {
        enum pdu_reject reason = (enum pdu_reject)0;
        enum pdu_fault fault = pdu_judge(bytes + at, &limits, &reason);
        const uint8_t *bhs = bytes + at;

        verdict_check(bhs, &limits, fault, reason);
        if (fault == PDU_DROP)
            break;
        at += PDU_HEADER;
        if (pdu_data_padded(bhs) > length - at)
            break;
        at += pdu_data_padded(bhs);
    }
    return 0;
}
