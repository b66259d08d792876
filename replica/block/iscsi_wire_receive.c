/* What comes: headers are read into the stage, data where it belongs with the next header
 * behind it, and each PDU is acted on when all of it is here. */
#include <errno.h>
#include <string.h>

#include "replica/base/checked.h"
#include "replica/block/iscsi_wire_inside.h"

enum { RECEIVE_PIECES = 16 }; /* buffers of one readv() that the data goes to */

/** Its bytes move. */
static void hear(struct wire *wire, const struct initiator_command *command)
{
    wire->heard = min_u64(wire->heard, command->order);
}

/** The target's own ping. */
static void take_nop(struct wire *wire)
{
    const uint8_t *in = wire->header;
    uint8_t *out;

    if (get_be32(in + 20) == NO_TAG) /* only tells its numbers */
        return;
    out = wire_control(wire, NOP_OUT, 0);
    if (!out)
        return;
    memcpy(out + 8, in + 8, 8); /* LUN */
    put_be32(out + 16, NO_TAG);
    memcpy(out + 20, in + 20, 4);
}

static void take_ready(struct wire *wire)
{
    const uint8_t *in = wire->header;
    struct initiator_command *command = wire_command_of(wire, get_be32(in + 16));
    uint32_t offset = get_be32(in + 40), length = get_be32(in + 44);

    /* One at a time and in order: all that was allowed before has been taken. */
    if (!command || command->direction != INITIATOR_OUT || command->queued ||
            offset != command->moved || length == 0 || length % 4 ||
            length > wire->terms.max_burst || length > command->length - offset) {
        wire->lost = true;
        return;
    }
    hear(wire, command);
    command->allowed = offset + length;
    command->transfer_tag = get_be32(in + 20);
    command->data_sn = 0;
    command->queued = true;
    wire_list_add(&wire->sending, command);
}

/** The data segment is the length of the sense data in two bytes, then the sense data. */
static void take_sense(const struct wire *wire, struct scsi_answer *answer)
{
    uint32_t came = get_be32(wire->header + 4) & 0xffffff;
    unsigned said;

    if (came < 2)
        return;
    said = (unsigned)wire->kept[0] << 8 | wire->kept[1];
    if (said > came - 2)
        return; /* torn: as good as none */
    answer->sense_length = said < SENSE_KEEP ? said : SENSE_KEEP;
    memcpy(answer->sense, wire->kept + 2, answer->sense_length);
}

static void take_status(struct wire *wire, struct initiator_command *command)
{
    const uint8_t *in = wire->header;
    struct scsi_answer *answer = &command->answer;

    *answer = (struct scsi_answer){ .status = in[3] };
    if (answer->status == 0) /* GOOD: "not now" would move nothing */
        hear(wire, command);
    if (in[1] & UNDERFLOW)
        answer->residual = (int64_t)get_be32(in + 44);
    else if (in[1] & OVERFLOW)
        answer->residual = -(int64_t)get_be32(in + 44);
    if ((in[0] & OPCODE) == SCSI_RESPONSE)
        take_sense(wire, answer);
    wire_command_answered(wire, command);
}

static void take_response(struct wire *wire)
{
    struct initiator_command *command =
            wire_command_of(wire, get_be32(wire->header + 16));

    if (!command || wire->header[2] != 0) /* not completed at the target */
        wire->lost = true;
    else
        take_status(wire, command);
}

static void take_managed(struct wire *wire)
{
    if (get_be32(wire->header + 16) != CONTROL_RESET) {
        wire->lost = true;
        return;
    }
    wire->reset_result = wire->header[2] == 0 ? 0 : -EIO;
    wire->reset_done = true;
}

/** The PDU is here, its data too. */
static void pdu_end(struct wire *wire)
{
    struct initiator_command *into = wire->into;

    wire->in_pdu = false;
    wire->into = NULL;
    switch (wire->header[0] & OPCODE) {
    case DATA_IN:
        if (!(wire->header[1] & STATUS))
            break;
        if (!into) /* data out of order was left out, its status counts */
            into = wire_command_of(wire, get_be32(wire->header + 16));
        if (into)
            take_status(wire, into);
        break;
    case SCSI_RESPONSE:
        take_response(wire);
        break;
    case READY_TO_TRANSFER:
        take_ready(wire);
        break;
    case NOP_IN:
        take_nop(wire);
        break;
    case TASK_MANAGED:
        take_managed(wire);
        break;
    case LOGGED_OUT:
        wire->logout_done = true;
        break;
    case ASYNC_MESSAGE: /* but for news of a LUN, which its commands tell too, all ask to
                           leave */
        wire->lost |= wire->header[36] != 0;
        break;
    default:
        wire->lost = true;
        break;
    }
}

static void take_numbers(struct wire *wire, const uint8_t *header)
{
    uint32_t expected = get_be32(header + 28), most = get_be32(header + 32);
    unsigned opcode = header[0] & OPCODE;

    if (serial_reached(most, expected - 1) && serial_reached(most, wire->max_cmd_sn))
        wire->max_cmd_sn = most;
    if ((opcode == DATA_IN && !(header[1] & STATUS)) || opcode == READY_TO_TRANSFER ||
            (opcode == NOP_IN && get_be32(header + 16) == NO_TAG))
        return; /* no status, no number of it */
    wire->exp_stat_sn = get_be32(header + 24) + 1;
}

/** Where the data of a Data-In goes. */
static void data_begin(struct wire *wire)
{
    const uint8_t *header = wire->header;
    struct initiator_command *command = wire_command_of(wire, get_be32(header + 16));
    uint64_t end = (uint64_t)get_be32(header + 40) + wire->left;

    if (!command || command->direction != INITIATOR_IN ||
            end > expected_length(command))
        wire->lost = true;
    else if (wire->left == 0 ||
            (end - wire->left == command->moved && end <= command->length))
        wire->into = command;
    /* Else something before it never came, or nobody wants it: the answer will be short. */
}

static void pdu_begin(struct wire *wire, const uint8_t *header)
{
    uint32_t length = get_be32(header + 4) & 0xffffff;

    if (header[4] != 0 || length > TERMS_SEGMENT) { /* nothing that comes has an AHS */
        wire->lost = true;
        return;
    }
    memcpy(wire->header, header, TERMS_HEADER);
    take_numbers(wire, header);
    wire->in_pdu = true;
    wire->left = length;
    wire->pad = -length & 3u;
    wire->into = NULL;
    wire->kept_length = 0;
    memset(wire->kept, 0, sizeof(wire->kept));
    if ((header[0] & OPCODE) == DATA_IN)
        data_begin(wire);
}

/** Data came for the command that is being read. */
static void cursor_forward(struct wire *wire, size_t n)
{
    struct initiator_command *command = wire->into;
    struct wire_cursor *cursor = &command->cursor;

    hear(wire, command);
    command->moved += (uint32_t)n;
    cursor->at += n;
    while (cursor->piece < command->iovcnt &&
            cursor->at >= command->iov[cursor->piece].iov_len) {
        cursor->at -= command->iov[cursor->piece].iov_len;
        cursor->piece++;
    }
}

/** Data that was read with the headers goes where it belongs. */
static void stage_to_command(struct wire *wire, size_t n)
{
    struct initiator_command *command = wire->into;

    while (n) {
        const struct iovec *iov = &command->iov[command->cursor.piece];
        size_t part = min_u64(n, iov->iov_len - command->cursor.at);
        memcpy((uint8_t *)iov->iov_base + command->cursor.at,
                wire->stage + wire->stage_from, part);
        cursor_forward(wire, part);
        wire->stage_from += part;
        n -= part;
    }
}

static void stage_to_kept(struct wire *wire, size_t n)
{
    size_t part = min_u64(n, sizeof(wire->kept) - wire->kept_length);

    memcpy(wire->kept + wire->kept_length, wire->stage + wire->stage_from, part);
    wire->kept_length += part;
    wire->stage_from += n;
}

static void stage_data(struct wire *wire)
{
    size_t n = min_u64(wire->left, wire->stage_to - wire->stage_from);

    wire->left -= (uint32_t)n;
    if (wire->into)
        stage_to_command(wire, n);
    else
        stage_to_kept(wire, n);
    n = min_u64(wire->pad, wire->stage_to - wire->stage_from);
    if (wire->left == 0) {
        wire->stage_from += n;
        wire->pad -= (unsigned)n;
    }
}

/** Everything that is staged, as far as it can be understood. */
static void stage_parse(struct wire *wire)
{
    while (!wire->lost) {
        if (wire->in_pdu)
            stage_data(wire);
        if (wire->in_pdu && (wire->left || wire->pad))
            break;
        if (wire->in_pdu) {
            pdu_end(wire);
            continue;
        }
        if (wire->stage_to - wire->stage_from < TERMS_HEADER)
            break;
        pdu_begin(wire, wire->stage + wire->stage_from);
        wire->stage_from += TERMS_HEADER;
    }
    wire->stage_to -= wire->stage_from; /* at most a part of a header */
    memmove(wire->stage, wire->stage + wire->stage_from, wire->stage_to);
    wire->stage_from = 0;
}

/** What the PDU still lacks, and behind it the stage; returns the number of elements. */
static int receive_plan(struct wire *wire, struct iovec *iov, size_t *data)
{
    struct initiator_command *command = wire->in_pdu ? wire->into : NULL;
    size_t left = command ? wire->left : 0;
    int count = 0;

    *data = 0;
    if (left) {
        struct wire_cursor cursor = command->cursor;
        while (left && count < RECEIVE_PIECES) {
            const struct iovec *piece = &command->iov[cursor.piece];
            size_t n = min_u64(left, piece->iov_len - cursor.at);
            iov[count++] = (struct iovec){ (uint8_t *)piece->iov_base + cursor.at, n };
            *data += n;
            left -= n;
            cursor = (struct wire_cursor){ cursor.piece + 1, 0 };
        }
    }
    if (left == 0)
        iov[count++] = (struct iovec){ wire->stage + wire->stage_to,
            sizeof(wire->stage) - wire->stage_to };
    return count;
}

/** One read of the socket. False when it has no more for now. */
static bool receive_once(struct wire *wire, size_t *got)
{
    struct iovec iov[RECEIVE_PIECES + 1];
    size_t data, asked = 0, came;
    int count = receive_plan(wire, iov, &data);
    ssize_t n = readv(wire->fd, iov, count);

    *got = 0;
    if (n <= 0) {
        wire->lost = n == 0 || (errno != EAGAIN && errno != EINTR);
        return false;
    }
    for (int i = 0; i < count; i++)
        asked += iov[i].iov_len;
    *got = (size_t)n;
    came = min_u64(data, (size_t)n);
    if (came) {
        wire->left -= (uint32_t)came;
        cursor_forward(wire, came);
    }
    wire->stage_to += (size_t)n - came;
    stage_parse(wire);
    return (size_t)n == asked;
}

void wire_receive(struct wire *wire, size_t budget)
{
    size_t got = 0, total = 0;

    while (!wire->lost && total < budget && receive_once(wire, &got))
        total += got;
}
