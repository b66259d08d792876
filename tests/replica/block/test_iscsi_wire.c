/* The full feature phase against a far side of a few lines on a socket pair: an honest one
 * that cuts, mixes and delays as it may, and one that lies. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "replica/block/iscsi_wire.h"
#include "tests/support/seed.h"

enum { COMMANDS = 40, LENGTH_MOST = 200 << 10, PIECES_MOST = 40, TAPE = 1 << 20 };

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void to_be32(uint8_t *p, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* -- the far side --------------------------------------------------------------------- */

struct far_task {
    bool used, write;
    uint32_t tag, length, moved; /* bytes that came, or that were sent */
    uint32_t asked; /* up to here, unasked data too */
    uint32_t data_sn, in_sn, transfer_tag;
    bool wants; /* all that was asked for is here */
    uint8_t bytes[LENGTH_MOST];
};

struct scene {
    struct wire wire;
    struct login_terms terms;
    uint64_t seed;
    int fds[2]; /* ours, theirs */
    uint8_t in[TAPE], out[TAPE]; /* of the far side */
    size_t in_count, out_count;
    uint32_t stat_sn, exp_cmd_sn, window;
    struct far_task tasks[WIRE_TASKS];
};

static struct scene scene;

static void scene_start(const struct login_terms *terms)
{
    scene.in_count = scene.out_count = 0;
    for (int i = 0; i < WIRE_TASKS; i++)
        scene.tasks[i].tag = scene.tasks[i].used = 0;
    scene.terms = *terms;
    scene.stat_sn = terms->exp_stat_sn;
    scene.exp_cmd_sn = terms->cmd_sn;
    scene.window = 8;
    cr_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, scene.fds) == 0);
    wire_begin(&scene.wire, scene.fds[0], 0x4123, terms);
}

static void scene_end(void)
{
    close(scene.fds[0]);
    close(scene.fds[1]);
}

static const struct login_terms PLAIN = { .told = true,
    .segment = 8192,
    .first_burst = 65536,
    .max_burst = 65536,
    .immediate = true,
    .initial_r2t = true,
    .cmd_sn = 0xfffffffe, /* wraps */
    .max_cmd_sn = 6,
    .exp_stat_sn = 0xffffffff };

/** A PDU of the far side, on its tape; padding is garbage. */
static uint8_t *far_pdu(unsigned opcode, unsigned flags, uint32_t tag, const void *data,
        uint32_t length, bool status)
{
    uint8_t *header = scene.out + scene.out_count;

    cr_assert(scene.out_count + TERMS_HEADER + length + 4 <= TAPE);
    memset(header, 0, TERMS_HEADER);
    header[0] = (uint8_t)opcode;
    header[1] = (uint8_t)flags;
    to_be32(header + 4, length);
    to_be32(header + 16, tag);
    to_be32(header + 24, status ? scene.stat_sn++ : 0x12345678);
    to_be32(header + 28, scene.exp_cmd_sn);
    to_be32(header + 32, scene.exp_cmd_sn + scene.window - 1);
    memset(header + TERMS_HEADER, 0xee, length + 3);
    if (data)
        memcpy(header + TERMS_HEADER, data, length);
    scene.out_count += TERMS_HEADER + (length + 3) / 4 * 4;
    return header;
}

/** Sends what is on the tape, a part of it when @most says so. */
static void far_flush(size_t most)
{
    size_t n = scene.out_count < most ? scene.out_count : most;
    ssize_t sent = send(scene.fds[1], scene.out, n, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (sent <= 0)
        return;
    scene.out_count -= (size_t)sent;
    memmove(scene.out, scene.out + sent, scene.out_count);
}

static struct far_task *far_task(uint32_t tag)
{
    for (int i = 0; i < WIRE_TASKS; i++)
        if (scene.tasks[i].used && scene.tasks[i].tag == tag)
            return &scene.tasks[i];
    return NULL;
}

static void far_data(struct far_task *task, const uint8_t *pdu, uint32_t length)
{
    cr_assert(length <= scene.terms.segment && task->moved + length <= task->asked);
    memcpy(task->bytes + task->moved, pdu + TERMS_HEADER, length);
    task->moved += length;
    cr_assert_eq((pdu[1] & 0x80) != 0, task->moved == task->asked, "F with the last");
    task->wants = task->moved == task->asked;
}

static void far_command(const uint8_t *pdu, uint32_t length)
{
    const struct login_terms *terms = &scene.terms;
    struct far_task *task = scene.tasks;
    uint32_t most;

    cr_assert_eq(be32(pdu + 24), scene.exp_cmd_sn, "in order, none left out");
    scene.exp_cmd_sn++;
    while (task->used || task->tag) /* kept until its command is done here */
        task++;
    task->used = true;
    task->write = pdu[1] & 0x20;
    task->tag = be32(pdu + 16);
    task->length = be32(pdu + 20);
    task->moved = task->data_sn = task->in_sn = 0;
    task->transfer_tag = 0xffffffff;
    task->asked = 0;
    if (task->write) {
        most = task->length < terms->first_burst ? task->length : terms->first_burst;
        task->asked = terms->initial_r2t ? length : most;
        cr_assert(terms->immediate || length == 0);
        far_data(task, pdu, length);
    } else {
        seed_fill(&scene.seed, task->bytes, task->length);
    }
}

static void far_take(const uint8_t *pdu, uint32_t length)
{
    struct far_task *task;

    cr_assert(pdu[0] == 0x40 || (pdu[8] == 0x41 && pdu[9] == 0x23), "of the LUN");
    switch (pdu[0] & 0x3f) {
    case 0x01:
        far_command(pdu, length);
        break;
    case 0x05:
        task = far_task(be32(pdu + 16));
        cr_assert(task && task->write && length > 0);
        cr_assert_eq(be32(pdu + 20), task->transfer_tag);
        cr_assert_eq(be32(pdu + 36), task->data_sn++);
        cr_assert_eq(be32(pdu + 40), task->moved);
        far_data(task, pdu, length);
        break;
    case 0x00:
        cr_assert(
                pdu[0] == 0x40 && be32(pdu + 16) == 0xffffffff && be32(pdu + 20) == 77);
        break;
    default:
        cr_assert_fail("opcode %02x", pdu[0]);
    }
}

static void far_receive(void)
{
    size_t at = 0;
    ssize_t n = recv(scene.fds[1], scene.in + scene.in_count, TAPE - scene.in_count,
            MSG_DONTWAIT);

    if (n > 0)
        scene.in_count += (size_t)n;
    while (scene.in_count - at >= TERMS_HEADER &&
            scene.in_count - at >= terms_pdu_length(scene.in + at)) {
        const uint8_t *pdu = scene.in + at;
        far_take(pdu, be32(pdu + 4) & 0xffffff);
        at += terms_pdu_length(pdu);
    }
    scene.in_count -= at;
    memmove(scene.in, scene.in + at, scene.in_count);
}

static void far_write_on(struct far_task *task)
{
    uint32_t left = task->length - task->moved;
    uint32_t most = scene.terms.max_burst < left ? scene.terms.max_burst : left;
    uint8_t *pdu;

    if (left == 0) {
        far_pdu(0x21, 0x80, task->tag, NULL, 0, true);
        task->used = false;
        return;
    }
    task->wants = false;
    task->transfer_tag = (uint32_t)seed_next(&scene.seed) & 0x7fffffff;
    task->asked = task->moved + 4 * (1 + (uint32_t)seed_below(&scene.seed, most / 4));
    task->data_sn = 0;
    pdu = far_pdu(0x31, 0x80, task->tag, NULL, 0, false);
    to_be32(pdu + 20, task->transfer_tag);
    to_be32(pdu + 40, task->moved);
    to_be32(pdu + 44, task->asked - task->moved);
}

static void far_read_on(struct far_task *task)
{
    uint32_t left = task->length - task->moved;
    uint32_t n = left ? 1 + (uint32_t)seed_below(&scene.seed, left) : 0;
    bool last = n == left, with_status = last && seed_below(&scene.seed, 2);
    uint8_t *pdu;

    if (n || with_status) {
        pdu = far_pdu(0x25, with_status ? 0x81 : 0, task->tag,
                task->bytes + task->moved, n, with_status);
        to_be32(pdu + 36, task->in_sn++);
        to_be32(pdu + 40, task->moved);
        task->moved += n;
    }
    if (!last)
        return;
    if (!with_status)
        far_pdu(0x21, 0x80, task->tag, NULL, 0, true);
    task->used = false;
}

/** One step of one of the commands, drawn. */
static void far_step(void)
{
    struct far_task *task = &scene.tasks[seed_below(&scene.seed, WIRE_TASKS)];

    if (seed_below(&scene.seed, 50) == 0)
        to_be32(far_pdu(0x20, 0x80, 0xffffffff, NULL, 0, false) + 20, 77);
    if (!task->used || scene.out_count > TAPE / 2)
        return;
    if (!task->write)
        far_read_on(task);
    else if (task->wants)
        far_write_on(task);
}

/* -- an honest far side --------------------------------------------------------------- */

struct near {
    struct initiator_command command;
    struct iovec iov[PIECES_MOST];
    uint8_t bytes[LENGTH_MOST];
    bool done;
};

static struct near nears[COMMANDS];

static void near_start(struct near *near)
{
    struct initiator_command *command = &near->command;
    uint32_t length = 4 * (1 + (uint32_t)seed_below(&scene.seed, LENGTH_MOST / 4));
    uint32_t at = 0;

    memset(command, 0, sizeof(*command));
    near->done = false;
    command->cdb_size = 16;
    command->direction = seed_below(&scene.seed, 2) ? INITIATOR_IN : INITIATOR_OUT;
    command->length = length;
    command->iov = near->iov;
    while (at < length) {
        uint32_t n = 1 + (uint32_t)seed_below(&scene.seed, length - at);
        n = command->iovcnt == PIECES_MOST - 1 ? length - at : n;
        near->iov[command->iovcnt++] = (struct iovec){ near->bytes + at, n };
        at += n;
    }
    seed_fill(&scene.seed, near->bytes, length);
    wire_queue(&scene.wire, command);
}

/** What it moved is what the far side has, or had. */
static void near_check(struct near *near, struct far_task *task)
{
    cr_assert_eq(near->command.moved, near->command.length);
    cr_assert(near->command.answer.status == 0 && near->command.answer.residual == 0);
    cr_assert(memcmp(near->bytes, task->bytes, near->command.length) == 0);
    near->done = true;
}

static void play_finished(unsigned *done)
{
    struct initiator_command *command;

    while ((command = wire_list_take(&scene.wire.finished))) {
        struct near *near = (struct near *)(void *)command;
        struct far_task *task = NULL;
        for (int i = 0; i < WIRE_TASKS && !task; i++)
            if (!scene.tasks[i].used && scene.tasks[i].tag == command->tag)
                task = &scene.tasks[i];
        cr_assert(task && !near->done);
        near_check(near, task);
        task->tag = 0;
        ++*done;
    }
}

static void play(const struct login_terms *terms, uint64_t *seed)
{
    unsigned done = 0, started = 0;

    scene_start(terms);
    scene.seed = seed_next(seed);
    scene.window = 1 + (uint32_t)seed_below(seed, 30);
    scene.wire.max_cmd_sn = terms->cmd_sn + scene.window - 1;
    for (long step = 0; done < COMMANDS; step++) {
        cr_assert(step < 10000000 && !scene.wire.lost);
        if (started < COMMANDS && seed_below(&scene.seed, 4) == 0)
            near_start(&nears[started++]);
        if (seed_below(&scene.seed, 2))
            wire_send(&scene.wire);
        if (seed_below(&scene.seed, 2))
            far_receive();
        far_step();
        far_flush(
                1 + seed_below(&scene.seed, seed_below(&scene.seed, 2) ? 100 : 200000));
        wire_receive(&scene.wire, 1 + seed_below(&scene.seed, 300000));
        play_finished(&done);
    }
    cr_assert_eq(scene.wire.outstanding, 0);
    cr_assert_null(wire_take_lost(&scene.wire));
    scene_end();
}

Test(wire, moves_every_byte_however_it_is_cut)
{
    uint64_t seed = seed_take("wire");

    for (int i = 0; i < 60; i++) {
        struct login_terms terms = PLAIN;
        terms.immediate = seed_below(&seed, 2);
        terms.initial_r2t = seed_below(&seed, 2);
        terms.segment = 512u << seed_below(&seed, 10);
        terms.first_burst = 512u << seed_below(&seed, 8);
        terms.max_burst = terms.first_burst << seed_below(&seed, 3);
        play(&terms, &seed);
    }
}

/* -- one that lies -------------------------------------------------------------------- */

static struct initiator_command one;
static uint8_t one_bytes[64 << 10];
static struct iovec one_iov;

/** A command of 64 KiB is out, and the far side has it. */
static void one_out(enum initiator_direction direction)
{
    scene_start(&PLAIN);
    memset(&one, 0, sizeof(one));
    memset(one_bytes, 0x55, sizeof(one_bytes));
    one_iov = (struct iovec){ one_bytes, sizeof(one_bytes) };
    one.cdb_size = 16;
    one.direction = direction;
    one.length = direction ? sizeof(one_bytes) : 0;
    one.iov = &one_iov;
    one.iovcnt = direction != 0;
    wire_queue(&scene.wire, &one);
    wire_send(&scene.wire);
    far_receive();
    cr_assert(far_task(one.tag));
}

/** What is on the tape arrives, byte by byte when @slowly. */
static void arrive(bool slowly)
{
    while (scene.out_count) {
        far_flush(slowly ? 1 : TAPE);
        wire_receive(&scene.wire, TAPE);
        if (scene.wire.lost)
            break;
    }
}

static uint8_t *data_in(uint32_t offset, uint32_t length, bool status)
{
    uint8_t *pdu = far_pdu(0x25, status ? 0x81 : 0, one.tag, one_bytes, length, status);

    to_be32(pdu + 40, offset);
    return pdu;
}

static bool one_done(void)
{
    return wire_list_take(&scene.wire.finished) == &one;
}

Test(wire, data_that_never_came_is_counted)
{
    for (int slowly = 0; slowly < 2; slowly++) {
        one_out(INITIATOR_IN); /* a hole */
        data_in(0, 4096, false);
        data_in(8192, 57344, true);
        arrive(slowly);
        cr_assert(one_done() && one.moved == 4096);
        scene_end();

        one_out(INITIATOR_IN); /* the end is missing */
        data_in(0, 65024, true);
        arrive(slowly);
        cr_assert(one_done() && one.moved == 65024);
        scene_end();

        one_out(INITIATOR_IN); /* twice the same, and not all */
        data_in(0, 32768, false);
        data_in(0, 32768, true);
        arrive(slowly);
        cr_assert(one_done() && one.moved == 32768);
        scene_end();

        one_out(INITIATOR_IN); /* nothing */
        far_pdu(0x21, 0x80, one.tag, NULL, 0, true);
        arrive(slowly);
        cr_assert(one_done() && one.moved == 0);
        scene_end();

        one_out(INITIATOR_OUT); /* good, and it never asked for it */
        far_pdu(0x21, 0x80, one.tag, NULL, 0, true);
        arrive(slowly);
        cr_assert(one_done() && one.moved == 8192);
        scene_end();
    }
}

enum lie {
    STRANGER,
    STALE_TAG,
    BEYOND,
    FAR_BEYOND,
    READ_OF_A_WRITE,
    READY_OF_A_READ,
    READY_ELSEWHERE,
    READY_TOO_LONG,
    READY_OVER_BURST,
    READY_FOR_NOTHING,
    READY_TWICE,
    TOO_LARGE,
    WITH_AHS,
    REJECT,
    LEAVE,
    NOT_COMPLETED,
    ANSWERED_TWICE,
    RESET_UNASKED,
    PINGS,
    UNKNOWN,
    LIES
};

static void ready(uint32_t offset, uint32_t length)
{
    uint8_t *pdu = far_pdu(0x31, 0x80, one.tag, NULL, 0, false);

    to_be32(pdu + 40, offset);
    to_be32(pdu + 44, length);
}

static void lie(enum lie lie)
{
    switch (lie) {
    case STRANGER:
        far_pdu(0x21, 0x80, one.tag ^ 1, NULL, 0, true);
        break;
    case STALE_TAG:
        far_pdu(0x21, 0x80, one.tag ^ 0x100, NULL, 0, true);
        break;
    case BEYOND:
        data_in(0, 65536, false);
        data_in(65536, 4, true);
        break;
    case FAR_BEYOND:
        data_in(0xffffff00, 512, false);
        break;
    case READ_OF_A_WRITE:
        data_in(0, 512, false);
        break;
    case READY_OF_A_READ:
        ready(0, 512);
        break;
    case READY_ELSEWHERE:
        ready(8192 + 512, 512);
        break;
    case READY_TOO_LONG:
        ready(8192, 65536 - 8192 + 4);
        break;
    case READY_OVER_BURST:
        ready(8192, 0xfffffffc);
        break;
    case READY_FOR_NOTHING:
        ready(8192, 0);
        break;
    case READY_TWICE:
        ready(8192, 512);
        ready(8192, 512);
        break;
    case TOO_LARGE:
        to_be32(far_pdu(0x25, 0, one.tag, NULL, 0, false) + 4, 0xffffff);
        break;
    case WITH_AHS:
        far_pdu(0x21, 0x80, one.tag, NULL, 0, true)[4] = 1;
        break;
    case REJECT:
        far_pdu(0x3f, 0x80, 0xffffffff, one_bytes, 48, true);
        break;
    case LEAVE:
        far_pdu(0x32, 0x80, 0xffffffff, NULL, 0, true)[36] = 1;
        break;
    case NOT_COMPLETED:
        far_pdu(0x21, 0x80, one.tag, NULL, 0, true)[2] = 1;
        break;
    case ANSWERED_TWICE:
        far_pdu(0x21, 0x80, one.tag, NULL, 0, true);
        far_pdu(0x21, 0x80, one.tag, NULL, 0, true);
        break;
    case RESET_UNASKED:
        far_pdu(0x22, 0x80, one.tag, NULL, 0, true);
        break;
    case PINGS:
        for (int i = 0; i <= WIRE_CONTROLS; i++)
            to_be32(far_pdu(0x20, 0x80, 0xffffffff, NULL, 0, false) + 20, 77);
        break;
    default:
        far_pdu(0x2a, 0x80, one.tag, NULL, 0, true);
        break;
    }
}

Test(wire, a_lie_ends_the_session)
{
    for (int i = 0; i < LIES * 2; i++) {
        enum lie which = (enum lie)(i / 2);
        bool write = which >= READ_OF_A_WRITE && which != READY_OF_A_READ &&
                which <= READY_TWICE;
        one_out(write ? INITIATOR_OUT : INITIATOR_IN);
        lie(which);
        arrive(i % 2);
        cr_assert(scene.wire.lost, "lie %d", which);
        if (which != ANSWERED_TWICE)
            cr_assert(wire_take_lost(&scene.wire) == &one, "lie %d", which);
        scene_end();
    }
}

Test(wire, a_socket_that_ends_is_noticed)
{
    one_out(INITIATOR_IN);
    close(scene.fds[1]);
    wire_receive(&scene.wire, TAPE);
    cr_assert(scene.wire.lost);
    cr_assert(wire_take_lost(&scene.wire) == &one && !wire_take_lost(&scene.wire));
    close(scene.fds[0]);
}

static unsigned sense_kept(unsigned said, unsigned came)
{
    uint8_t data[300] = { (uint8_t)(said >> 8), (uint8_t)said, 0x70, 0, 3 };

    one_out(INITIATOR_IN);
    far_pdu(0x21, 0x82, one.tag, data, came, true)[3] = 2;
    to_be32(scene.out + 44, 65536);
    arrive(came % 2);
    cr_assert(one_done() && one.answer.status == 2 && one.answer.residual == 65536);
    cr_assert(one.answer.sense_length < 3 || one.answer.sense[2] == 3);
    scene_end();
    return one.answer.sense_length;
}

Test(wire, sense_is_taken_whole_or_not_at_all)
{
    cr_assert_eq(sense_kept(18, 20), 18);
    cr_assert_eq(sense_kept(18, 19), 0);
    cr_assert_eq(sense_kept(18, 1), 0);
    cr_assert_eq(sense_kept(0, 0), 0);
    cr_assert_eq(sense_kept(252, 254), SENSE_KEEP);
    cr_assert_eq(sense_kept(3, 255), 3);
}

Test(wire, buffers_are_kept_until_they_have_been_sent)
{
    static uint8_t bytes[4 << 20];
    struct login_terms terms = PLAIN;

    terms.segment = terms.first_burst = TERMS_SEGMENT;
    scene_start(&terms);
    memset(&one, 0, sizeof(one));
    one_iov = (struct iovec){ bytes, TERMS_SEGMENT };
    one.cdb_size = 16;
    one.direction = INITIATOR_OUT;
    one.length = TERMS_SEGMENT;
    one.iov = &one_iov;
    one.iovcnt = 1;
    for (int size = 4096, i = 0; i < 2; i++)
        (void)setsockopt(scene.fds[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    wire_queue(&scene.wire, &one);
    wire_send(&scene.wire);
    cr_assert(scene.wire.blocked);
    far_pdu(0x21, 0x80, one.tag, NULL, 0, true)[3] = 8; /* BUSY, before it has it all */
    arrive(false);
    cr_assert(!scene.wire.lost && !scene.wire.finished.first);
    for (int i = 0; i < 10000 && !scene.wire.finished.first; i++) {
        while (recv(scene.fds[1], scene.in, TAPE, MSG_DONTWAIT) > 0)
            ;
        wire_send(&scene.wire);
    }
    cr_assert(one_done() && one.answer.status == 8);
    scene_end();
}

Test(wire, resets_and_logouts_are_answered)
{
    scene_start(&PLAIN);
    wire_queue_reset(&scene.wire);
    wire_queue_logout(&scene.wire);
    cr_assert(wire_wants_send(&scene.wire));
    wire_send(&scene.wire);
    cr_assert_eq(recv(scene.fds[1], scene.in, TAPE, MSG_DONTWAIT), 2 * TERMS_HEADER);
    cr_assert(scene.in[0] == 0x42 && scene.in[1] == 0x85);
    cr_assert(scene.in[TERMS_HEADER] == 0x46 && scene.in[TERMS_HEADER + 1] == 0x80);
    far_pdu(0x22, 0x80, be32(scene.in + 16), NULL, 0, true)[2] = 5;
    arrive(false);
    cr_assert(scene.wire.reset_done && scene.wire.reset_result == -EIO);
    far_pdu(0x22, 0x80, be32(scene.in + 16), NULL, 0, true);
    arrive(false);
    cr_assert_eq(scene.wire.reset_result, 0);
    far_pdu(0x26, 0x80, be32(scene.in + TERMS_HEADER + 16), NULL, 0, true);
    arrive(false);
    cr_assert(scene.wire.logout_done && !scene.wire.lost);
    scene_end();
}

/* Headers with one field drawn anew, and plain noise: never a byte outside the buffers. */
Test(wire, noise_is_survived)
{
    static const uint8_t opcodes[] = { 0x20, 0x21, 0x22, 0x25, 0x26, 0x31, 0x32, 0x3f };
    uint64_t seed = seed_take("noise");

    for (int i = 0; i < 5000; i++) {
        one_out(i % 2 ? INITIATOR_IN : INITIATOR_OUT);
        for (int n = 0; n < 3; n++) {
            uint32_t length =
                    seed_below(&seed, 3) ? 0 : (uint32_t)seed_below(&seed, 9000);
            uint8_t *pdu = far_pdu(opcodes[seed_below(&seed, sizeof(opcodes))],
                    (unsigned)seed_below(&seed, 256), one.tag, NULL, length, true);
            to_be32(pdu + 40, seed_below(&seed, 2) ? 0 : (uint32_t)seed_next(&seed));
            to_be32(pdu + 44, (uint32_t)seed_below(&seed, 65536));
            if (seed_below(&seed, 3) == 0)
                pdu[seed_below(&seed, TERMS_HEADER)] = (uint8_t)seed_next(&seed);
        }
        arrive(false);
        wire_send(&scene.wire);
        scene_end();
    }
}
