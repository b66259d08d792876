/* The unit: its making and ending, its sessions, and the task set.
 *
 * Task set (SAM-5 8): one for all sessions, in the order of coming. SIMPLE tasks run at once
 * unless an older ORDERED or HEAD OF QUEUE task is there; an ORDERED one waits for all that
 * are older; HEAD OF QUEUE never waits. While nobody is ORDERED or HEAD OF QUEUE this costs
 * two comparisons.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "replica/base/digest.h"
#include "server/iscsi/scsi_inside.h"

/* -- making and ending --------------------------------------------------------------- */

static void unit_free(struct scsi_unit *unit)
{
    if (unit->scratch)
        (void)munmap(unit->scratch, SCRATCH);
    free(unit);
}

static bool scratch_make(struct scsi_unit *unit)
{
    void *scratch = mmap(
            NULL, SCRATCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (scratch == MAP_FAILED)
        return false;
    unit->scratch = scratch;
    return true;
}

static void unit_refused(struct loop_task *later)
{
    struct scsi_unit *unit = container_of(later, struct scsi_unit, later);
    void (*made)(void *, struct scsi_unit *, const struct fault *) = unit->made;
    void *context = unit->context;
    struct fault fault = unit->fault;

    unit_free(unit);
    made(context, NULL, &fault);
}

static void unit_refuse(struct scsi_unit *unit)
{
    unit->later.run = unit_refused;
    loop_post(unit->loop, &unit->later);
}

static void unfit_closed(void *context)
{
    unit_refused(&((struct scsi_unit *)context)->later);
}

void unit_first_opened(
        struct scsi_unit *unit, struct block_device *device, const struct fault *fault)
{
    static const struct fault none = { 0 };

    if (unit->device) {
        unit->made(unit->context, unit, &none);
        return;
    }
    if (device) {
        fault_set(&unit->fault, -EINVAL, "the element cannot be shown as blocks");
        block_close(device, unfit_closed, unit);
        return;
    }
    if (fault)
        unit->fault = *fault;
    if (!unit->fault.error)
        fault_set(&unit->fault, -EIO, "the element does not open");
    unit_refused(&unit->later);
}

static void unit_fill(struct scsi_unit *unit, const struct scsi_unit_options *options)
{
    unit->loop = options->loop;
    unit->buffers = options->buffers;
    unit->backing = options->backing;
    unit->id = options->id;
    unit->read_only = options->read_only;
    (void)snprintf(unit->name, sizeof unit->name, "%s", options->name);
    digest_sha256(unit->id.text, strlen(unit->id.text), unit->hash);
    opcode_index(unit->rows);
    TAILQ_INIT(&unit->set);
    unit_device_init(unit);
}

void scsi_unit_create(const struct scsi_unit_options *options,
        void (*made)(void *context, struct scsi_unit *unit, const struct fault *fault),
        void *context)
{
    struct scsi_unit *unit = calloc(1, sizeof *unit);

    check(unit && loop_is_mine(options->loop)); /* some KiB, once an export */
    unit->made = made;
    unit->context = context;
    unit_fill(unit, options);
    if (!scratch_make(unit)) {
        fault_set(&unit->fault, -ENOMEM, "out of memory");
        unit_refuse(unit);
    } else if (!reserve_read(unit, options->kept, options->kept_length)) {
        fault_set(&unit->fault, -EILSEQ, "the kept reservations cannot be read");
        unit_refuse(unit);
    } else {
        unit_open(unit, false);
    }
}

static void unit_gone(struct loop_task *later)
{
    struct scsi_unit *unit = container_of(later, struct scsi_unit, later);
    void (*gone)(void *) = unit->gone;
    void *context = unit->context;

    unit_free(unit);
    gone(context);
}

void unit_maybe_gone(struct scsi_unit *unit)
{
    if (unit->device || unit->opening_now || unit->closing_now || unit->registering)
        return;
    unit->later.run = unit_gone;
    loop_post(unit->loop, &unit->later);
}

static void last_flushed(struct block_request *request, int result)
{
    (void)result; /* nobody is left to hear it; the driver logs */
    unit_close(container_of(request, struct scsi_unit, last_flush));
}

void scsi_unit_destroy(
        struct scsi_unit *unit, void (*gone)(void *context), void *context)
{
    check(loop_is_mine(unit->loop) && !unit->ending);
    check(!unit->nexuses && TAILQ_EMPTY(&unit->set));
    unit->ending = true;
    unit->gone = gone;
    unit->context = context;
    loop_timer_stop(unit->loop, &unit->retry);
    loop_timer_stop(unit->loop, &unit->patience);
    if (!unit->device) {
        unit_maybe_gone(unit);
        return;
    }
    unit->last_flush =
            (struct block_request){ .op = BLOCK_FLUSH, .done = last_flushed };
    block_submit(unit->device, &unit->last_flush);
}

/* -- sessions ------------------------------------------------------------------------ */

void nexus_attention(struct scsi_nexus *nexus, enum sense_code code)
{
    struct scsi_ua attention = { (uint8_t)(code >> 8), (uint8_t)code };

    for (unsigned i = 0; i < nexus->attentions; i++)
        if (nexus->attention[i].asc == attention.asc &&
                nexus->attention[i].ascq == attention.ascq)
            return;
    if (nexus->attentions == SCSI_UA_MAX) { /* too much to tell: all may have changed */
        nexus->attentions = 0;
        attention = (struct scsi_ua){ SENSE_POWER_ON >> 8, SENSE_POWER_ON & 0xff };
    }
    nexus->attention[nexus->attentions++] = attention;
}

void unit_attention(
        struct scsi_unit *unit, const struct scsi_nexus *but, enum sense_code code)
{
    for (struct scsi_nexus *nexus = unit->nexuses; nexus; nexus = nexus->next)
        if (nexus != but)
            nexus_attention(nexus, code);
}

bool nexus_attention_take(struct scsi_nexus *nexus, enum sense_code *code)
{
    if (nexus->attentions == 0)
        return false;
    *code = (enum sense_code)(nexus->attention[0].asc << 8 | nexus->attention[0].ascq);
    nexus->attentions--;
    memmove(nexus->attention, nexus->attention + 1,
            nexus->attentions * sizeof *nexus->attention);
    return true;
}

void scsi_nexus_open(struct scsi_unit *unit, struct scsi_nexus *nexus)
{
    check(loop_is_mine(unit->loop) && !unit->ending);
    nexus->unit = unit;
    nexus->attentions = 0;
    nexus->figures = (struct scsi_unit_figures){ 0 };
    nexus->next = unit->nexuses;
    unit->nexuses = nexus;
    nexus_attention(nexus, SENSE_POWER_ON);
    reserve_nexus_open(nexus);
}

void scsi_nexus_close(struct scsi_nexus *nexus)
{
    struct scsi_unit *unit = nexus->unit;
    const struct scsi_task *task;

    TAILQ_FOREACH(task, &unit->set, in_set)
        check(task->nexus != nexus);
    reserve_nexus_close(nexus);
    for (struct scsi_nexus **at = &unit->nexuses; *at; at = &(*at)->next)
        if (*at == nexus) {
            *at = nexus->next;
            break;
        }
    nexus->unit = NULL;
}

void scsi_unit_figures(const struct scsi_unit *unit, struct scsi_unit_figures *figures)
{
    *figures = unit->figures;
}

void scsi_nexus_figures(
        const struct scsi_nexus *nexus, struct scsi_unit_figures *figures)
{
    *figures = nexus->figures;
}

/* -- the task set -------------------------------------------------------------------- */

static void set_add(struct scsi_unit *unit, struct scsi_task *task)
{
    TAILQ_INSERT_TAIL(&unit->set, task, in_set);
    unit->ordered += task->attribute == SCSI_ORDERED;
    unit->heads += task->attribute == SCSI_HEAD_OF_QUEUE;
    unit->figures.queued++;
    unit->figures.commands++;
    task->nexus->figures.queued++;
    task->nexus->figures.commands++;
}

static void resets_check(struct scsi_unit *unit);

void set_remove(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);

    TAILQ_REMOVE(&unit->set, task, in_set);
    unit->ordered -= task->attribute == SCSI_ORDERED;
    unit->heads -= task->attribute == SCSI_HEAD_OF_QUEUE;
    unit->blocked -= !task->started;
    unit->figures.queued--;
    task->nexus->figures.queued--;
    if (unit->resets)
        resets_check(unit);
}

static bool task_first_may_start(
        const struct scsi_unit *unit, const struct scsi_task *task)
{
    if (task->attribute == SCSI_HEAD_OF_QUEUE)
        return true;
    if (task->attribute == SCSI_ORDERED)
        return TAILQ_FIRST(&unit->set) == task;
    return unit->ordered == 0 && unit->heads == 0;
}

/* The oldest task that waits without need. */
static struct scsi_task *set_startable(const struct scsi_unit *unit)
{
    struct scsi_task *task;

    TAILQ_FOREACH(task, &unit->set, in_set) {
        bool ordered = task->attribute == SCSI_ORDERED;
        if (!task->started && task->state == TASK_BLOCKED &&
                (!ordered || task == TAILQ_FIRST(&unit->set)))
            return task;
        if (ordered || task->attribute == SCSI_HEAD_OF_QUEUE)
            return NULL;
    }
    return NULL;
}

static void set_start(struct scsi_unit *unit, struct scsi_task *task)
{
    unit->blocked--;
    task->started = true;
    task->state = TASK_RUNNING;
    task->geometry = unit->geometry;
    task_start(task);
}

void set_pump(struct scsi_unit *unit)
{
    struct scsi_task *task;

    if (unit->blocked == 0 || unit->pumping)
        return;
    unit->pumping = true;
    while (unit->blocked > 0 && (task = set_startable(unit)))
        set_start(unit, task);
    unit->pumping = false;
}

static void task_reset(struct scsi_task *task)
{
    task->abort_asked = task->started = task->purged = task->scratch = false;
    task->aborted = false;
    task->lock.asked = task->lock.held = false;
    task->status = SCSI_GOOD;
    task->sense_length = 0;
    task->data = task->buffer = NULL;
    task->data_length = task->sent = 0;
    task->transfer = task->at = task->end = task->loose = 0;
    task->line = NULL;
    task->wait.share = NULL;
    task->resume = NULL;
    task->later.queued = false;
    task->request.task.queued = false;
}

void scsi_submit(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);

    task_reset(task);
    task->sequence = unit->sequence++;
    task->opcode = opcode_find(unit, task->cdb);
    set_add(unit, task);
    unit->blocked++;
    task->state = TASK_BLOCKED;
    if (task_first_may_start(unit, task))
        set_start(unit, task);
}

/* It never waits for others, nor others for it. */
void scsi_submit_wrong_lun(struct scsi_task *task)
{
    struct scsi_unit *unit = task_unit(task);

    task_reset(task);
    task->attribute = SCSI_SIMPLE;
    task->sequence = unit->sequence++;
    task->opcode = NULL;
    set_add(unit, task);
    task->started = true;
    task->state = TASK_RUNNING;
    task_wrong_lun(task);
}

/* -- task management ----------------------------------------------------------------- */

static bool reset_concerns(
        const struct scsi_reset_wait *wait, const struct scsi_task *task)
{
    return task->sequence < wait->before && (!wait->of || wait->of == task->nexus);
}

static void reset_finished(struct loop_task *later)
{
    struct scsi_reset_wait *wait = container_of(later, struct scsi_reset_wait, later);

    wait->finished(wait);
}

static bool reset_over(const struct scsi_unit *unit, const struct scsi_reset_wait *wait)
{
    const struct scsi_task *task;

    TAILQ_FOREACH(task, &unit->set, in_set)
        if (reset_concerns(wait, task))
            return false;
    return true;
}

static void resets_check(struct scsi_unit *unit)
{
    for (struct scsi_reset_wait **at = &unit->resets; *at;) {
        struct scsi_reset_wait *wait = *at;
        if (!reset_over(unit, wait)) {
            at = &wait->next;
            continue;
        }
        *at = wait->next;
        wait->later.run = reset_finished;
        loop_post(unit->loop, &wait->later);
    }
}

/* Sessions that lose commands to somebody else's CLEAR TASK SET hear of it. */
static void clear_announce(struct scsi_nexus *by, const struct scsi_reset_wait *wait)
{
    const struct scsi_task *task;

    TAILQ_FOREACH(task, &by->unit->set, in_set)
        if (task->nexus != by && reset_concerns(wait, task))
            nexus_attention(task->nexus, SENSE_COMMANDS_CLEARED);
}

/* Every session hears of it, who asked for it too (SAM-5 6.3.3). */
static void unit_reset(struct scsi_unit *unit, enum scsi_reset what)
{
    unit->descriptor_sense = unit->write_protect = unit->write_through = false;
    reserve_reset(unit);
    unit_attention(unit, NULL,
            what == SCSI_LOGICAL_UNIT_RESET ? SENSE_UNIT_RESET : SENSE_TARGET_RESET);
}

void scsi_reset(
        struct scsi_nexus *nexus, enum scsi_reset what, struct scsi_reset_wait *wait)
{
    struct scsi_unit *unit = nexus->unit;
    struct scsi_task *task;

    wait->unit = unit;
    wait->of = what == SCSI_ABORT_TASK_SET ? nexus : NULL;
    wait->before = unit->sequence;
    wait->later.queued = false;
    if (what == SCSI_CLEAR_TASK_SET)
        clear_announce(nexus, wait);
    if (what == SCSI_LOGICAL_UNIT_RESET || what == SCSI_TARGET_WARM_RESET)
        unit_reset(unit, what);
    TAILQ_FOREACH(task, &unit->set, in_set)
        if (reset_concerns(wait, task))
            scsi_abort(task);
    wait->next = unit->resets;
    unit->resets = wait;
    resets_check(unit);
}
