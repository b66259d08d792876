#include "replica/block/iscsi_probe.h"

#include <errno.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/checked.h"
#include "replica/base/scope.h"

enum {
    ATTENTIONS_MAX = 32, /* unit attentions eaten by one probe */
    ABORTS_MAX = 3,
    REST_FIRST_MS = 10,
    REST_MAX_MS = 500,
    MODE_LENGTH = 192,
    EXTENT_LENGTH = 24
};

/**
 * One question. @take reads the answer: 0, or an error that ends the probe. A step whose
 * answer is @optional may be refused by the target: then its facts stay unknown.
 */
struct probe_step {
    const char *name;
    bool optional, again; /* again: part of PROBE_AGAIN too */
    uint8_t cdb[16], cdb_size;
    uint32_t length; /* bytes asked for; the CDB holds the same number */
    int (*take)(struct probe *, unsigned length, struct fault *);
    bool (*wanted)(const struct probe *); /* NULL: always */
};

static int take_nothing(struct probe *probe, unsigned length, struct fault *fault)
{
    (void)probe;
    (void)length;
    (void)fault;
    return 0;
}

static int take_inquiry(struct probe *probe, unsigned length, struct fault *fault)
{
    facts_inquiry(&probe->facts, probe->buffer, length);
    if (probe->facts.qualifier != 0)
        return fault_set(fault, -ENXIO, "the target has no such logical unit");
    if (probe->facts.type != 0)
        return fault_set(fault, -EINVAL,
                "the logical unit is no disk but of type %02Xh", probe->facts.type);
    return 0;
}

static int take_capacity(struct probe *probe, unsigned length, struct fault *fault)
{
    struct lun_facts *facts = &probe->facts;
    uint64_t bytes;

    if (!facts_capacity(facts, probe->buffer, length))
        return fault_set(fault, -EIO, "the logical unit does not tell its size");
    if (facts->block_size < 512 || facts->block_size > 4096 ||
            (facts->block_size & (facts->block_size - 1)) != 0)
        return fault_set(fault, -EINVAL, "blocks of %u bytes are not supported",
                facts->block_size);
    if (facts->blocks == 0 || !checked_mul(facts->blocks, facts->block_size, &bytes) ||
            bytes > INT64_MAX)
        return fault_set(fault, -EINVAL, "the logical unit has an impossible size");
    return 0;
}

#define TAKE(name)                                                                     \
    static int take_##name(struct probe *probe, unsigned length, struct fault *fault)  \
    {                                                                                  \
        (void)fault;                                                                   \
        facts_##name(&probe->facts, probe->buffer, length);                            \
        return 0;                                                                      \
    }
TAKE(vpd83)
TAKE(vpd80)
TAKE(vpdb0)
TAKE(vpdb2)
TAKE(mode)
TAKE(reservation)
#undef TAKE

static int take_extents(struct probe *probe, unsigned length, struct fault *fault)
{
    (void)fault;
    probe->facts.can_extents = length >= 8;
    return 0;
}

static bool wants_reservation(const struct probe *probe)
{
    return probe->depth == PROBE_WRITABLE;
}

static bool wants_extents(const struct probe *probe)
{
    return probe->facts.thin && probe->facts.reads_zeros;
}

#define VPD(page)                                                                      \
    {                                                                                  \
        0x12, 1, page, PROBE_BUFFER >> 8, PROBE_BUFFER & 0xff, 0                       \
    }

static const struct probe_step steps[] = {
    { "TEST UNIT READY", false, true, { 0 }, 6, 0, take_nothing, NULL },
    { "INQUIRY", false, true, { 0x12, 0, 0, 0, 96, 0 }, 6, 96, take_inquiry, NULL },
    { "VPD 83h", true, true, VPD(0x83), 6, PROBE_BUFFER, take_vpd83, NULL },
    { "VPD 80h", true, true, VPD(0x80), 6, PROBE_BUFFER, take_vpd80, NULL },
    { "READ CAPACITY", false, true, { 0x9e, 0x10, [13] = 32 }, 16, 32, take_capacity,
            NULL },
    { "VPD B0h", true, false, VPD(0xb0), 6, PROBE_BUFFER, take_vpdb0, NULL },
    { "VPD B2h", true, false, VPD(0xb2), 6, PROBE_BUFFER, take_vpdb2, NULL },
    { "MODE SENSE", true, false, { 0x1a, 0x08, 0x08, 0, MODE_LENGTH, 0 }, 6,
            MODE_LENGTH, take_mode, NULL },
    { "PERSISTENT RESERVE IN", true, false, { 0x5e, 0x01, [8] = 32 }, 10, 32,
            take_reservation, wants_reservation },
    { "GET LBA STATUS", true, false, { 0x9e, 0x12, [13] = EXTENT_LENGTH }, 16,
            EXTENT_LENGTH, take_extents, wants_extents },
};

enum { STEPS = sizeof(steps) / sizeof(steps[0]) };

static void ask(struct probe *probe, const struct probe_step *step)
{
    struct initiator_command *command = &probe->command;

    memset(probe->buffer, 0, sizeof(probe->buffer));
    memcpy(command->cdb, step->cdb, sizeof(command->cdb));
    command->cdb_size = step->cdb_size;
    command->length = (uint32_t)min_u64(step->length, sizeof(probe->buffer));
    command->expected = step->length;
    command->direction = step->length ? INITIATOR_IN : INITIATOR_NONE;
    probe->iov = (struct iovec){ probe->buffer, command->length };
    command->iov = &probe->iov;
    command->iovcnt = step->length ? 1 : 0;
    initiator_send(probe->initiator, command);
}

static void step_send(struct probe *probe)
{
    ask(probe, &steps[probe->step]);
}

static bool step_skipped(const struct probe *probe)
{
    const struct probe_step *step = &steps[probe->step];

    return (probe->depth == PROBE_AGAIN && !step->again) ||
            (step->wanted && !step->wanted(probe));
}

static void probe_next(struct probe *probe)
{
    static const struct fault none;

    do
        probe->step++;
    while (probe->step < STEPS && step_skipped(probe));
    if (probe->step < STEPS)
        step_send(probe);
    else
        probe->done(probe, &none);
}

static void step_good(struct probe *probe)
{
    struct fault fault = { 0 };
    const struct probe_step *step = &steps[probe->step];

    /* Less than asked for is the rule for parameter data. */
    if (step->take(probe, probe->command.moved, &fault) == 0)
        probe_next(probe);
    else
        probe->done(probe, &fault);
}

static void step_rest(struct probe *probe)
{
    loop_timer_start(probe->loop, &probe->rest, probe->rest_ms);
    probe->rest_ms = (unsigned)min_u64(probe->rest_ms * 2, REST_MAX_MS);
}

static void step_refused(
        struct probe *probe, const struct scsi_answer *answer, int error)
{
    struct sense sense = sense_parse(answer->sense, answer->sense_length);
    struct fault fault;
    char words[100];

    if (answer->status == 0x18) { /* a reservation of either kind, not ours */
        probe->facts.reserved = true;
        if (steps[probe->step].optional || probe->step == 0) {
            probe_next(probe);
            return;
        }
    }
    if (steps[probe->step].optional) {
        probe_next(probe);
        return;
    }
    sense_words(answer, words, sizeof(words));
    if (sense.valid && sense.key == 5 && sense.asc == 0x25)
        fault_set(&fault, -ENXIO, "the target has no such logical unit");
    else
        fault_set(&fault, error == ETIMEDOUT ? -ETIMEDOUT : -EIO, "%s answered %s",
                steps[probe->step].name, words);
    probe->done(probe, &fault);
}

static bool is_attention(struct probe *probe, const struct scsi_answer *answer)
{
    struct sense sense = sense_parse(answer->sense, answer->sense_length);

    if (answer->status != 0x02 || !sense.valid || sense.key != 6)
        return false;
    probe->was_reset |= sense.asc == 0x29;
    return true;
}

static void step_done(struct initiator_command *command)
{
    struct probe *probe = container_of(command, struct probe, command);
    const struct scsi_answer *answer = &command->answer;
    struct sense_decision decision;

    if (answer->lost ||
            !probe->initiator->context) /* its owner knows, or hears of it */
        return;
    decision = sense_decide(answer, false);
    if (is_attention(probe, answer) && probe->attentions++ < ATTENTIONS_MAX)
        step_send(probe);
    else if (decision.action == SENSE_OK)
        step_good(probe);
    else if (decision.action == SENSE_BACK_OFF)
        step_rest(probe);
    else if ((decision.action == SENSE_RETRY_ONCE ||
                     decision.action == SENSE_RETRY_THRICE) &&
            probe->aborts++ < ABORTS_MAX)
        step_send(probe);
    else
        step_refused(probe, answer, decision.error);
}

/* -- the room ---------------------------------------------------------------------- */

/**
 * Some targets give each command a buffer of the length that it expects, from an allocator
 * that maps a large one anew each time until a still larger one was freed. tgtd with glibc
 * does: each page of each piece of a copy then faults, which costs a third of the speed. A
 * question that may be answered at length, and is answered in 32 bytes, ends that.
 */
enum { ROOM = 4 << 20 };

bool probe_takes_room(const struct probe *probe)
{
    const struct lun_facts *facts = &probe->facts;

    return facts->max_transfer == 0 || facts->max_transfer >= ROOM / facts->block_size;
}

static const struct probe_step room = {
    .cdb = { 0x9e, 0x10, [11] = ROOM >> 16 }, .cdb_size = 16, .length = ROOM
};

/* It was offered; what is said to it tells nothing new. */
static void room_done(struct initiator_command *command)
{
    static const struct fault none;
    struct probe *probe = container_of(command, struct probe, command);

    if (command->answer.lost || !probe->initiator->context)
        return;
    if (is_attention(probe, &command->answer) && probe->attentions++ < ATTENTIONS_MAX)
        ask(probe, &room);
    else
        probe->done(probe, &none);
}

void probe_offer_room(struct probe *probe)
{
    probe->command.done = room_done;
    ask(probe, &room);
}

/* -- the face ---------------------------------------------------------------------- */

static void rest_over(struct loop_timer *timer)
{
    step_send(container_of(timer, struct probe, rest));
}

void probe_start(struct probe *probe, struct loop *loop, struct initiator *initiator,
        enum probe_depth depth)
{
    check(probe->done && initiator->context);
    probe->facts = (struct lun_facts){ .volatile_cache = true };
    probe->loop = loop;
    probe->initiator = initiator;
    probe->depth = depth;
    probe->step = probe->attentions = probe->aborts = 0;
    probe->was_reset = false;
    probe->rest_ms = REST_FIRST_MS;
    probe->rest.fire = rest_over;
    probe->command.done = step_done;
    step_send(probe);
}

void probe_stop(struct probe *probe)
{
    if (probe->loop)
        loop_timer_stop(probe->loop, &probe->rest);
}
