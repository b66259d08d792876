#include "replica/block/iscsi_wire.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"

enum {
    ELEMENTS_MAX = 1024, /* of one sendmsg() or readv() */
    BATCH_BYTES = 1 << 20,
    RECEIVE_PIECES = 16,
    CONTROL_RESET = 1, /* tags of what is no command */
    CONTROL_LOGOUT = 2
};

enum opcode {
    NOP_OUT = 0x00,
    SCSI_COMMAND = 0x01,
    TASK_MANAGEMENT = 0x02,
    DATA_OUT = 0x05,
    LOGOUT = 0x06,
    NOP_IN = 0x20,
    SCSI_RESPONSE = 0x21,
    TASK_MANAGED = 0x22,
    DATA_IN = 0x25,
    LOGGED_OUT = 0x26,
    READY_TO_TRANSFER = 0x31,
    ASYNC_MESSAGE = 0x32,
    OPCODE = 0x3f,
    IMMEDIATE = 0x40
};

enum { FINAL = 0x80, OVERFLOW = 0x04, UNDERFLOW = 0x02, STATUS = 0x01 };

static const uint32_t NO_TAG = 0xffffffff;
static const uint32_t COMMAND_TAG = 0x80000000; /* in the tags of commands alone */

static_assert((int)WIRE_PIECES + 2 <= (int)(WIRE_PIECES + 2 * WIRE_HEADERS),
        "a PDU of any command fits an empty batch");

static void put_be32(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)(value >> 24);
    p[1] = (uint8_t)(value >> 16);
    p[2] = (uint8_t)(value >> 8);
    p[3] = (uint8_t)value;
}

/** Serial number arithmetic, RFC 1982. */
static bool serial_reached(uint32_t value, uint32_t mark)
{
    return (int32_t)(value - mark) >= 0;
}

/* -- lists ---------------------------------------------------------------------------- */

static void list_init(struct wire_list *list)
{
    list->first = NULL;
    list->end = &list->first;
}

static void list_add(struct wire_list *list, struct initiator_command *command)
{
    command->next = NULL;
    *list->end = command;
    list->end = &command->next;
}

struct initiator_command *wire_list_take(struct wire_list *list)
{
    struct initiator_command *command = list->first;

    if (!command)
        return NULL;
    list->first = command->next;
    if (!list->first)
        list->end = &list->first;
    command->next = NULL;
    return command;
}

static void list_remove(struct wire_list *list, struct initiator_command *command)
{
    struct initiator_command **at = &list->first;

    while (*at && *at != command)
        at = &(*at)->next;
    if (!*at)
        return;
    *at = command->next;
    if (!*at)
        list->end = at;
    command->next = NULL;
}

/* -- commands ------------------------------------------------------------------------- */

void wire_begin(
        struct wire *wire, int fd, unsigned lun, const struct login_terms *terms)
{
    wire->fd = fd;
    wire->lun = lun;
    wire->terms = *terms;
    wire->cmd_sn = terms->cmd_sn;
    wire->max_cmd_sn = terms->max_cmd_sn;
    wire->exp_stat_sn = terms->exp_stat_sn;
    wire->lost = wire->blocked = wire->reset_done = wire->logout_done = false;
    list_init(&wire->finished);
    list_init(&wire->starting);
    list_init(&wire->sending);
    list_init(&wire->deferred);
    wire->control_count = wire->elements = wire->element = wire->headers = 0;
    wire->batch = 1;
    wire->batched = 0;
    wire->stage_from = wire->stage_to = 0;
    wire->in_pdu = false;
    wire->outstanding = wire->serial = 0;
    memset(wire->tasks, 0, sizeof(wire->tasks));
}

void wire_queue(struct wire *wire, struct initiator_command *command)
{
    uint32_t place = 0;

    check(wire->outstanding < WIRE_TASKS && command->iovcnt <= WIRE_PIECES);
    check(command->direction != INITIATOR_OUT || command->length % 4 == 0);
    while (wire->tasks[place])
        place++;
    wire->tasks[place] = command;
    wire->outstanding++;
    wire->serial = (wire->serial + 1) & 0xffff;
    command->tag = COMMAND_TAG | wire->serial << 8 | place;
    command->moved = command->allowed = command->data_sn = 0;
    command->cursor = (struct wire_cursor){ 0, 0 };
    command->started = command->answered = false;
    command->queued = true;
    command->batch = 0;
    list_add(&wire->starting, command);
}

static struct initiator_command *command_of(struct wire *wire, uint32_t tag)
{
    struct initiator_command *command;

    if ((tag & 0xff) >= WIRE_TASKS)
        return NULL;
    command = wire->tasks[tag & 0xff];
    return command && command->tag == tag && command->started && !command->answered
            ? command
            : NULL;
}

static void command_off(struct wire *wire, struct initiator_command *command)
{
    wire->tasks[command->tag & 0xff] = NULL;
    wire->outstanding--;
}

static bool in_batch(const struct wire *wire, const struct initiator_command *command)
{
    return wire->element < wire->elements && command->batch == wire->batch;
}

/** Its buffers are the caller's again, at the latest when the batch has been sent. */
static void command_answered(struct wire *wire, struct initiator_command *command)
{
    if (command->queued)
        list_remove(&wire->sending, command);
    command->queued = false;
    command->answered = true;
    if (in_batch(wire, command)) {
        list_add(&wire->deferred, command);
        return;
    }
    command_off(wire, command);
    list_add(&wire->finished, command);
}

struct initiator_command *wire_take_lost(struct wire *wire)
{
    for (unsigned i = 0; i < WIRE_TASKS; i++) {
        struct initiator_command *command = wire->tasks[i];
        if (!command)
            continue;
        command_off(wire, command);
        command->next = NULL;
        return command;
    }
    return NULL;
}

/* -- sending -------------------------------------------------------------------------- */

static void batch_add(struct wire *wire, void *base, size_t length)
{
    wire->element_room[wire->elements++] = (struct iovec){ base, length };
    wire->batched += length;
}

static uint8_t *batch_header(struct wire *wire, unsigned opcode, unsigned flags)
{
    uint8_t *header = wire->header_room[wire->headers++];

    memset(header, 0, TERMS_HEADER);
    header[0] = (uint8_t)opcode;
    header[1] = (uint8_t)flags;
    batch_add(wire, header, TERMS_HEADER);
    return header;
}

/** @length bytes of the command's buffers, which are at its cursor. */
static void batch_data(
        struct wire *wire, struct initiator_command *command, uint32_t length)
{
    struct wire_cursor *cursor = &command->cursor;

    command->moved += length;
    while (length) {
        const struct iovec *iov = &command->iov[cursor->piece];
        size_t n = min_u64(length, iov->iov_len - cursor->at);
        batch_add(wire, (uint8_t *)iov->iov_base + cursor->at, n);
        length -= (uint32_t)n;
        cursor->at += n;
        if (cursor->at == iov->iov_len)
            *cursor = (struct wire_cursor){ cursor->piece + 1, 0 };
    }
}

static void header_lun(const struct wire *wire, uint8_t *header)
{
    header[8] = (uint8_t)(wire->lun >> 8);
    header[9] = (uint8_t)wire->lun;
}

static void header_length(uint8_t *header, uint32_t length)
{
    header[5] = (uint8_t)(length >> 16);
    header[6] = (uint8_t)(length >> 8);
    header[7] = (uint8_t)length;
}

/** The command with its immediate data. */
static void emit_command(struct wire *wire, struct initiator_command *command)
{
    static const unsigned flags[] = { 0, 0x40, 0x20 }; /* none, R, W */
    const struct login_terms *terms = &wire->terms;
    uint64_t unasked = 0, now = 0;
    uint8_t *header;

    if (command->direction == INITIATOR_OUT) {
        unasked = min_u64(command->length, terms->first_burst);
        if (terms->immediate)
            now = min_u64(unasked, terms->segment);
        if (terms->initial_r2t)
            unasked = now;
    }
    header = batch_header(wire, SCSI_COMMAND,
            flags[command->direction] | 1u /* SIMPLE */ |
                    (now == unasked ? FINAL : 0u));
    header_length(header, (uint32_t)now);
    header_lun(wire, header);
    put_be32(header + 16, command->tag);
    put_be32(header + 20, command->length);
    put_be32(header + 24, wire->cmd_sn++);
    put_be32(header + 28, wire->exp_stat_sn);
    memcpy(header + 32, command->cdb, command->cdb_size);
    command->started = true;
    command->allowed = (uint32_t)unasked;
    command->transfer_tag = NO_TAG;
    batch_data(wire, command, (uint32_t)now);
}

static void emit_data(struct wire *wire, struct initiator_command *command)
{
    uint32_t length =
            (uint32_t)min_u64(command->allowed - command->moved, wire->terms.segment);
    bool last = command->moved + length == command->allowed;
    uint8_t *header = batch_header(wire, DATA_OUT, last ? FINAL : 0);

    header_length(header, length);
    header_lun(wire, header);
    put_be32(header + 16, command->tag);
    put_be32(header + 20, command->transfer_tag);
    put_be32(header + 28, wire->exp_stat_sn);
    put_be32(header + 36, command->data_sn++);
    put_be32(header + 40, command->moved);
    batch_data(wire, command, length);
}

/** A PDU of @command, which may be cut anywhere, fits the batch. */
static bool batch_takes(
        const struct wire *wire, const struct initiator_command *command)
{
    return wire->headers < WIRE_HEADERS && wire->batched < BATCH_BYTES &&
            wire->elements + 2 + (unsigned)command->iovcnt <=
            sizeof(wire->element_room) / sizeof(wire->element_room[0]);
}

static void batch_controls(struct wire *wire)
{
    for (unsigned i = 0; i < wire->control_count; i++) {
        uint8_t *header = batch_header(wire, 0, 0);
        memcpy(header, wire->controls[i], TERMS_HEADER);
        put_be32(header + 24, wire->cmd_sn); /* immediate: does not count */
        put_be32(header + 28, wire->exp_stat_sn);
    }
    wire->control_count = 0;
}

static bool may_start(const struct wire *wire)
{
    return wire->starting.first && serial_reached(wire->max_cmd_sn, wire->cmd_sn);
}

/** What a command may send by now; the command moves on when that is all of it. */
static bool batch_command(struct wire *wire, struct initiator_command *command)
{
    while (command->moved < command->allowed && batch_takes(wire, command)) {
        command->batch = wire->batch;
        emit_data(wire, command);
    }
    return command->moved == command->allowed;
}

static void batch_fill(struct wire *wire)
{
    struct initiator_command *command;

    wire->elements = wire->element = wire->headers = 0;
    wire->batched = 0;
    wire->batch++;
    batch_controls(wire);
    while ((command = wire->sending.first)) {
        if (!batch_command(wire, command))
            return; /* full */
        (void)wire_list_take(&wire->sending);
        command->queued = false;
    }
    while (may_start(wire) && batch_takes(wire, wire->starting.first)) {
        command = wire_list_take(&wire->starting);
        command->queued = false;
        command->batch = wire->batch;
        emit_command(wire, command);
        if (!batch_command(wire, command)) {
            command->queued = true;
            list_add(&wire->sending, command);
            return;
        }
    }
}

/** All of the batch has left: what was answered meanwhile is done now. */
static void batch_sent(struct wire *wire)
{
    struct initiator_command *command;

    wire->elements = wire->element = 0;
    while ((command = wire_list_take(&wire->deferred))) {
        command_off(wire, command);
        list_add(&wire->finished, command);
    }
}

static void batch_advance(struct wire *wire, size_t sent)
{
    while (sent) {
        struct iovec *iov = &wire->element_room[wire->element];
        size_t n = min_u64(sent, iov->iov_len);
        sent -= n;
        iov->iov_base = (uint8_t *)iov->iov_base + n;
        iov->iov_len -= n;
        if (iov->iov_len == 0)
            wire->element++;
    }
    if (wire->element == wire->elements)
        batch_sent(wire);
}

bool wire_wants_send(const struct wire *wire)
{
    return wire->element < wire->elements || wire->control_count > 0 ||
            wire->sending.first || may_start(wire);
}

static void batch_push(struct wire *wire)
{
    struct msghdr message = { .msg_iov = wire->element_room + wire->element,
        .msg_iovlen = min_u64(wire->elements - wire->element, ELEMENTS_MAX) };
    ssize_t n = sendmsg(wire->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n >= 0)
        batch_advance(wire, (size_t)n);
    else if (errno == EAGAIN)
        wire->blocked = true;
    else if (errno != EINTR)
        wire->lost = true;
}

void wire_send(struct wire *wire)
{
    wire->blocked = false;
    while (!wire->lost && !wire->blocked && wire_wants_send(wire)) {
        if (wire->element == wire->elements)
            batch_fill(wire);
        batch_push(wire);
    }
}

static uint8_t *control_queue(struct wire *wire, unsigned opcode, unsigned flags)
{
    uint8_t *header;

    if (wire->control_count == WIRE_CONTROLS) { /* it floods us, and does not read */
        wire->lost = true;
        return NULL;
    }
    header = wire->controls[wire->control_count++];
    memset(header, 0, TERMS_HEADER);
    header[0] = (uint8_t)(opcode | IMMEDIATE);
    header[1] = (uint8_t)(flags | FINAL);
    return header;
}

void wire_queue_reset(struct wire *wire)
{
    uint8_t *header = control_queue(wire, TASK_MANAGEMENT, 5); /* LOGICAL UNIT RESET */

    if (!header)
        return;
    header_lun(wire, header);
    put_be32(header + 16, CONTROL_RESET);
    put_be32(header + 20, NO_TAG);
}

void wire_queue_logout(struct wire *wire)
{
    uint8_t *header = control_queue(wire, LOGOUT, 0); /* close the session */

    if (header)
        put_be32(header + 16, CONTROL_LOGOUT);
}

/* -- receiving ------------------------------------------------------------------------ */

/** The target's own ping. */
static void take_nop(struct wire *wire)
{
    const uint8_t *in = wire->header;
    uint8_t *out;

    if (get_be32(in + 20) == NO_TAG) /* only tells its numbers */
        return;
    out = control_queue(wire, NOP_OUT, 0);
    if (!out)
        return;
    memcpy(out + 8, in + 8, 8); /* LUN */
    put_be32(out + 16, NO_TAG);
    memcpy(out + 20, in + 20, 4);
}

static void take_ready(struct wire *wire)
{
    const uint8_t *in = wire->header;
    struct initiator_command *command = command_of(wire, get_be32(in + 16));
    uint32_t offset = get_be32(in + 40), length = get_be32(in + 44);

    /* One at a time and in order: all that was allowed before has been taken. */
    if (!command || command->direction != INITIATOR_OUT || command->queued ||
            offset != command->moved || length == 0 || length % 4 ||
            length > wire->terms.max_burst || length > command->length - offset) {
        wire->lost = true;
        return;
    }
    command->allowed = offset + length;
    command->transfer_tag = get_be32(in + 20);
    command->data_sn = 0;
    command->queued = true;
    list_add(&wire->sending, command);
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
    if (in[1] & UNDERFLOW)
        answer->residual = (int64_t)get_be32(in + 44);
    else if (in[1] & OVERFLOW)
        answer->residual = -(int64_t)get_be32(in + 44);
    if ((in[0] & OPCODE) == SCSI_RESPONSE)
        take_sense(wire, answer);
    command_answered(wire, command);
}

static void take_response(struct wire *wire)
{
    struct initiator_command *command = command_of(wire, get_be32(wire->header + 16));

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
            into = command_of(wire, get_be32(wire->header + 16));
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
    struct initiator_command *command = command_of(wire, get_be32(header + 16));
    uint32_t offset = get_be32(header + 40);

    if (!command || command->direction != INITIATOR_IN || offset > command->length ||
            wire->left > command->length - offset)
        wire->lost = true;
    else if (offset == command->moved || wire->left == 0)
        wire->into = command;
    /* Else something before it never came: it is no use, and the answer will be short. */
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

static void cursor_forward(struct initiator_command *command, size_t n)
{
    struct wire_cursor *cursor = &command->cursor;

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
        cursor_forward(command, part);
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
        cursor_forward(wire->into, came);
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
