/* What the engine tells, as rows.
 *
 * Events come on the loops' threads, as copies in notes; everything else is on the clerk's.
 * An event whose plan is not known any more (it was stopped and its end is recorded)
 * changes nothing, so a note may be tried again or come late.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/exports.h"
#include "replica/base/check.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"

/* -- why a job failed, in CIM's numbers ---------------------------------------------------- */

static const struct cause {
    int error;
    int64_t type, cause;
} causes[] = {
    { ETIMEDOUT, CIM_ERROR_COMMUNICATIONS, CIM_CAUSE_TIMEOUT },
    { ECONNREFUSED, CIM_ERROR_COMMUNICATIONS, CIM_CAUSE_CONNECTION },
    { ECONNRESET, CIM_ERROR_COMMUNICATIONS, CIM_CAUSE_CONNECTION },
    { ENOTCONN, CIM_ERROR_COMMUNICATIONS, CIM_CAUSE_CONNECTION },
    { EPIPE, CIM_ERROR_COMMUNICATIONS, CIM_CAUSE_CONNECTION },
    { EHOSTUNREACH, CIM_ERROR_COMMUNICATIONS, CIM_CAUSE_CONNECTION },
    { ENETUNREACH, CIM_ERROR_COMMUNICATIONS, CIM_CAUSE_CONNECTION },
    { EPROTO, CIM_ERROR_COMMUNICATIONS, CIM_CAUSE_PROTOCOL },
    { EACCES, CIM_ERROR_SECURITY, CIM_CAUSE_AUTHENTICATION },
    { EPERM, CIM_ERROR_SECURITY, CIM_CAUSE_AUTHENTICATION },
    { ENOKEY, CIM_ERROR_SECURITY, CIM_CAUSE_AUTHENTICATION },
    { EBADE, CIM_ERROR_UNAVAILABLE_RESOURCE, CIM_CAUSE_ELEMENT_UNAVAILABLE },
    { EBUSY, CIM_ERROR_UNAVAILABLE_RESOURCE, CIM_CAUSE_ELEMENT_UNAVAILABLE },
    { ENOENT, CIM_ERROR_UNAVAILABLE_RESOURCE, CIM_CAUSE_ELEMENT_MISSING },
    { ENXIO, CIM_ERROR_UNAVAILABLE_RESOURCE, CIM_CAUSE_ELEMENT_MISSING },
    { ENODEV, CIM_ERROR_UNAVAILABLE_RESOURCE, CIM_CAUSE_ELEMENT_MISSING },
    { ESTALE, CIM_ERROR_UNAVAILABLE_RESOURCE, CIM_CAUSE_RESOURCE_UNAVAILABLE },
    { ENOSPC, CIM_ERROR_OVERSUBSCRIPTION, CIM_CAUSE_STORAGE_CAPACITY },
    { EDQUOT, CIM_ERROR_OVERSUBSCRIPTION, CIM_CAUSE_STORAGE_CAPACITY },
    { EILSEQ, CIM_ERROR_HARDWARE, CIM_CAUSE_CORRUPT_DATA },
    { EROFS, CIM_ERROR_HARDWARE, CIM_CAUSE_IO_DEVICE },
    { EIO, CIM_ERROR_HARDWARE, CIM_CAUSE_IO_DEVICE },
    { ENOMEM, CIM_ERROR_SOFTWARE, CIM_CAUSE_OUT_OF_MEMORY },
    { EMFILE, CIM_ERROR_SOFTWARE, CIM_CAUSE_CAPACITY },
    { ENFILE, CIM_ERROR_SOFTWARE, CIM_CAUSE_CAPACITY },
};

static void job_cause(struct store_job *job, int error)
{
    job->error_type = CIM_ERROR_OTHER;
    job->probable_cause = CIM_CAUSE_OTHER;
    for (size_t i = 0; i < sizeof(causes) / sizeof(*causes); i++)
        if (causes[i].error == -error) {
            job->error_type = causes[i].type;
            job->probable_cause = causes[i].cause;
        }
}

/** A pair that differs is no device that lies: somebody wrote, or has not copied yet. */
static void job_differs(struct store_job *job)
{
    struct differences found;
    size_t at;

    differences_of(job, &found);
    job->error_type = CIM_ERROR_OTHER;
    job->probable_cause = CIM_CAUSE_SYNC_LOSS;
    at = (size_t)snprintf(job->error, sizeof(job->error),
            "the target differs from the source: %llu bytes in %llu ranges;"
            " the first%s:",
            (unsigned long long)found.bytes, (unsigned long long)found.ranges,
            found.ranges > found.kept ? " of them" : "");
    for (unsigned i = 0; i < found.kept && at + 48 < sizeof(job->error); i++)
        at += (size_t)snprintf(job->error + at, sizeof(job->error) - at, "%s %llu+%llu",
                i ? "," : "", (unsigned long long)found.first[i].offset,
                (unsigned long long)found.first[i].length);
}

/* -- how a job ends --------------------------------------------------------------------------- */

static void element_done(struct clerk_turn *turn, const struct uuid *id)
{
    struct store_element element;

    if (!turn_get(turn, STORE_ELEMENT, id->text, &element) || element.complete)
        return;
    element.complete = true;
    element.revision++;
    turn_put(turn, STORE_ELEMENT, &element);
    element_event(turn, &element, "InstModification");
}

/** The steady state a whole copy leads to; 0: the pair is gone. */
static int64_t synced_state(const struct store_replica *replica)
{
    switch (replica->copy_type) {
    case CIM_COPY_UNSYNC_ASSOC:
        return CIM_SYNC_FROZEN;
    case CIM_COPY_UNSYNC_UNASSOC:
        return 0;
    default:
        return CIM_SYNC_SYNCHRONIZED;
    }
}

static void pair_copied(struct clerk_turn *turn, struct store_replica *replica,
        const struct store_job *job)
{
    int64_t final = synced_state(replica);

    if (!final) {
        replica_remove(turn, replica);
        return;
    }
    replica->percent = 100;
    /* A source that is written meanwhile: no block is older than the start. */
    replica->when_synced = job->started;
    if (replica->sync_state == CIM_SYNC_FRACTURE_IN_PROGRESS) {
        replica->sync_state = CIM_SYNC_FRACTURED;
    } else if (replica->sync_state == CIM_SYNC_QUIESCE_IN_PROGRESS) {
        replica->sync_state = CIM_SYNC_QUIESCED;
        replica->state_before = final;
    } else {
        replica->sync_state = final;
        if (replica->copy_type == CIM_COPY_ASYNC)
            replica->scan_due = scan_next(replica, turn->now);
    }
    replica_put(turn, replica, false);
}

static void pair_done(struct clerk_turn *turn, struct store_replica *replica,
        const struct store_job *job)
{
    replica->job = (struct uuid){ "" };
    /* A verify mends nothing: why a pair is broken stays said. */
    if (job->work != JOB_VERIFY || replica->sync_state != CIM_SYNC_BROKEN)
        replica->last_error[0] = '\0';
    switch ((enum job_work)job->work) {
    case JOB_COPY:
    case JOB_RESYNC:
        pair_copied(turn, replica, job);
        return;
    case JOB_RESTORE:
        replica->sync_state = replica->copy_type == CIM_COPY_UNSYNC_ASSOC
                ? replica->state_before
                : CIM_SYNC_FRACTURED;
        break;
    case JOB_PREPARE:
        replica->sync_state = CIM_SYNC_PREPARED;
        break;
    case JOB_VERIFY:
        break;
    }
    replica_put(turn, replica, false);
}

static void job_over(struct clerk_turn *turn, struct store_job *job, int64_t state,
        int64_t return_value)
{
    job->state = state;
    job->return_value = return_value;
    job->wanted = 0;
    job->rate = 0;
    job->ended = turn->now;
    job_put(turn, job, false);
}

static void job_done(
        struct clerk_turn *turn, struct store_job *job, struct store_replica *replica)
{
    job->percent = 100;
    job->done = job->total;
    job->error[0] = '\0';
    job_over(turn, job, CIM_JOB_COMPLETED, CIM_OK);
    if (job_writes(job))
        element_done(turn, &job->target);
    if (replica)
        pair_done(turn, replica, job);
}

static void pair_broken(
        struct clerk_turn *turn, struct store_replica *replica, const char *why)
{
    struct fault fault = { .error = -ECANCELED };

    (void)snprintf(
            fault.why, sizeof(fault.why), "%.*s", (int)sizeof(fault.why) - 1, why);
    replica->job = (struct uuid){ "" };
    replica_break(turn, replica, &fault);
}

/** A copy that has begun has left the target as far as it came, whatever it held before. */
static void pair_left(struct store_replica *replica, const struct store_job *job)
{
    if (replica && job->started && (job->work == JOB_COPY || job->work == JOB_RESYNC))
        replica->percent = job->percent;
}

/** A verify has not ended well: the pair is what it was. @why: NULL when nothing was found. */
static void pair_kept(
        struct clerk_turn *turn, struct store_replica *replica, const char *why)
{
    replica->job = (struct uuid){ "" };
    if (why)
        (void)snprintf(replica->last_error, sizeof(replica->last_error), "%s", why);
    replica_put(turn, replica, false);
}

/** A job that was asked to end has ended: where does that leave the pair? */
static void pair_stopped(struct clerk_turn *turn, struct store_replica *replica,
        int64_t wanted, const char *why)
{
    if (wanted == WANT_STOP_COPY && replica->copy_type == CIM_COPY_UNSYNC_UNASSOC) {
        replica->job = (struct uuid){ "" };
        replica_remove(turn, replica);
    } else if (wanted == WANT_STOP_COPY) {
        replica->job = (struct uuid){ "" };
        replica->sync_state = CIM_SYNC_INITIALIZED;
        replica_put(turn, replica, false);
    } else if (replica->sync_state == CIM_SYNC_FRACTURE_IN_PROGRESS) {
        replica->job = (struct uuid){ "" };
        replica->sync_state = CIM_SYNC_FRACTURED;
        replica_put(turn, replica, false);
    } else {
        pair_broken(turn, replica, why);
    }
}

static void job_ended_on_request(
        struct clerk_turn *turn, struct store_job *job, struct store_replica *replica)
{
    int64_t wanted = job->wanted;
    const char *why = wanted == WANT_KILL ? "the job was killed on request"
            : wanted == WANT_TERMINATE    ? "the job was terminated on request"
                                          : "the copy was stopped on request";

    (void)snprintf(job->error, sizeof(job->error), "%s", why);
    job->error_code = CIM_FAILED;
    job->error_type = CIM_ERROR_OTHER;
    job->probable_cause = CIM_CAUSE_OTHER;
    job_over(turn, job, wanted == WANT_KILL ? CIM_JOB_KILLED : CIM_JOB_TERMINATED,
            CIM_FAILED);
    pair_left(replica, job);
    if (replica && job->work == JOB_VERIFY)
        pair_kept(turn, replica, NULL);
    else if (replica)
        pair_stopped(turn, replica, wanted, why);
}

static void job_suspended(
        struct clerk_turn *turn, struct store_job *job, struct store_replica *replica)
{
    job->state = CIM_JOB_SUSPENDED;
    job->wanted = 0;
    job->rate = 0;
    job->error[0] = '\0'; /* what it waited for, it does not wait for any more */
    job_put(turn, job, false);
    if (!replica || replica->sync_state != CIM_SYNC_QUIESCE_IN_PROGRESS)
        return;
    replica->sync_state = CIM_SYNC_QUIESCED;
    replica_put(turn, replica, false);
}

static void job_stopped(
        struct clerk_turn *turn, struct store_job *job, struct store_replica *replica)
{
    if (job->wanted == WANT_SUSPEND) {
        job_suspended(turn, job, replica);
    } else if (job->wanted) {
        job_ended_on_request(turn, job, replica);
    } else {
        /* The service stops: the job goes on at the next start, from its watermark. */
        if (!turn->service->draining)
            job->state = CIM_JOB_NEW;
        job->rate = 0;
        job->error[0] = '\0';
        job_put(turn, job, false);
    }
}

bool job_ending_is_news(const struct job_ending *ending)
{
    bool news = !ending->logged || !*ending->logged;

    if (ending->logged)
        *ending->logged = true;
    return news;
}

static void job_failed(struct clerk_turn *turn, struct store_job *job,
        struct store_replica *replica, const struct job_ending *ending)
{
    const char *why = ending->fault.why[0] ? ending->fault.why
                                           : strerrordesc_np(-ending->fault.error);
    struct log_about about = { .job = job->id.text,
        .replica = job->replica.text,
        .element = ending->on_target ? job->target.text : job->source.text,
        .request = job->request };

    /* Most of the engine's sentences say themselves whose fault it was. */
    (void)snprintf(job->error, sizeof(job->error), "%s%s",
            strstr(why, "source") || strstr(why, "target") ? ""
                    : ending->on_target                    ? "the target: "
                                                           : "the source: ",
            why);
    job->error_code = engine_return_value(ending->fault.error);
    job_cause(job, ending->fault.error);
    if (job->work == JOB_VERIFY && ending->fault.error == -EILSEQ)
        job_differs(job);
    if (job_ending_is_news(ending))
        log_event(LOG_WARN, "job-failed", about, "%s", job->error);
    job_over(turn, job, CIM_JOB_EXCEPTION, job->error_code);
    pair_left(replica, job);
    if (replica && job->work == JOB_VERIFY)
        pair_kept(turn, replica, job->error);
    else if (replica)
        pair_broken(turn, replica, job->error);
}

void job_end(
        struct clerk_turn *turn, struct store_job *job, const struct job_ending *ending)
{
    struct store_replica row, *replica = NULL;

    if (!uuid_is_none(&job->replica) &&
            turn_get(turn, STORE_REPLICA, job->replica.text, &row))
        replica = &row;
    if (replica && replica_hush(replica) && ending->end == ENGINE_STOPPED)
        replica_put(turn, replica, false); /* who goes on later puts no pair */
    switch (ending->end) {
    case ENGINE_DONE:
        job_done(turn, job, replica);
        break;
    case ENGINE_STOPPED:
        job_stopped(turn, job, replica);
        break;
    case ENGINE_FAILED:
        if (job->wanted > WANT_SUSPEND)
            job_ended_on_request(turn, job, replica);
        else
            job_failed(turn, job, replica, ending);
        break;
    }
}

/* -- events ------------------------------------------------------------------------------------ */

struct progress_note {
    struct clerk_note note;
    struct service *service;
    bool logged;
    struct engine_event event;
};

static struct job_ending ending_of(struct progress_note *progress)
{
    const struct engine_event *event = &progress->event;

    return (struct job_ending){ event->end, event->on_target, event->fault,
        &progress->logged };
}

/** Counters only grow, whatever a resumed plan has to do again; 100 is for the end. */
static void job_count(struct store_job *job, const struct engine_event *event)
{
    int64_t percent;

    if (event->total)
        job->total = event->total;
    if (event->done > job->done)
        job->done = event->done;
    job->skipped = event->skipped;
    job->skipped_equal = event->equal;
    job->skipped_zero = event->skipped - event->equal;
    job->written = event->written;
    job->verified = event->verified;
    differences_keep(job, &event->differences);
    if (event->read > job->read)
        job->read = event->read;
    if (event->watermark > job->watermark)
        job->watermark = event->watermark;
    job->rate = event->rate;
    job->limited_by = event->limited;
    if (event->mode != ENGINE_MODE_NONE)
        job->mode = event->mode;
    percent = job->total ? (int64_t)((__uint128_t)job->done * 100 / job->total) : 0;
    if (percent > 99)
        percent = 99;
    if (percent > job->percent)
        job->percent = percent;
}

/** Since when is reckoned once: two clocks need not agree to the millisecond. */
static void job_stall(
        struct store_job *job, const struct engine_event *event, int64_t now)
{
    if (!event->stall[0])
        job->stalled = 0;
    else if (!job->stalled)
        job->stalled = now - (int64_t)event->stalled_ms;
    (void)snprintf(job->stall_reason, sizeof(job->stall_reason), "%s", event->stall);
}

/** True: the job of a hold is done, the hold stays. */
static bool job_event(
        struct clerk_turn *turn, const struct uuid *id, struct progress_note *progress)
{
    const struct engine_event *event = &progress->event;
    struct job_ending ending = ending_of(progress);
    struct store_job job;
    bool waits;

    if (!turn_get(turn, STORE_JOB, id->text, &job) || job_is_over(job.state))
        return false;
    waits = job.error[0] || job.stalled || event->stall[0] ||
            event->kind == ENGINE_WAITING; /* or has waited until now */
    switch (event->kind) {
    case ENGINE_STARTED:
    case ENGINE_PROGRESS:
        if (job.state == CIM_JOB_STARTING)
            job.state = CIM_JOB_RUNNING;
        job.error[0] = '\0';
        break;
    case ENGINE_WAITING:
        (void)snprintf(job.error, sizeof(job.error), "waiting for the %s: %s",
                event->on_target ? "target" : "source", event->fault.why);
        break;
    case ENGINE_HELD:
    case ENGINE_ENDED:
        break;
    }
    if (job.work != JOB_PREPARE)
        job_count(&job, event);
    job_stall(&job, event, turn->now);
    if (waits && event->kind != ENGINE_ENDED)
        replica_told(turn, &job.replica, event);
    if (event->kind == ENGINE_HELD && job.wanted)
        return false; /* it was asked to stop meanwhile: its end comes */
    if (event->kind == ENGINE_HELD)
        ending.end = ENGINE_DONE;
    if (event->kind == ENGINE_HELD || event->kind == ENGINE_ENDED)
        job_end(turn, &job, &ending);
    else
        job_put(turn, &job, false);
    return event->kind == ENGINE_HELD;
}

/** A hold without a job: its end matters when it was not asked for. */
static void hold_ended(struct clerk_turn *turn, const struct uuid *id,
        const struct engine_event *event)
{
    struct store_replica replica;
    struct fault fault = event->fault;

    if (turn->service->draining || !turn_get(turn, STORE_REPLICA, id->text, &replica) ||
            replica.sync_state != CIM_SYNC_PREPARED)
        return;
    if (event->end != ENGINE_FAILED)
        fault_set(&fault, -ECANCELED, "what was held open was closed");
    replica_break(turn, &replica, &fault);
}

static bool progress_run(struct clerk_turn *turn, struct clerk_note *note)
{
    struct progress_note *progress = container_of(note, struct progress_note, note);
    const struct engine_event *event = &progress->event;
    struct job_ending ending = ending_of(progress);
    struct scheduler_plan_of of;
    bool held = false;

    if (!scheduler_find(turn->service, &event->id, &of))
        return false;
    if (!uuid_is_none(&of.job))
        held = job_event(turn, &of.job, progress);
    else if (event->kind != ENGINE_ENDED)
        replica_told(turn, &of.replica, event);
    else if (of.kind == SCHEDULER_HOLD)
        hold_ended(turn, &of.replica, event);
    else
        scan_ended(turn, &of.replica, &ending);
    if (event->kind == ENGINE_ENDED && of.written[0])
        written_loose(turn, of.written, event->loose);
    if (turn->error) /* taken back: it comes again, and finds its plan then too */
        return true;
    if (held)
        scheduler_held(turn->service, &event->id);
    if (event->kind == ENGINE_ENDED) {
        scheduler_ended(turn->service, &event->id);
        turn->schedule = true; /* its place is free */
    }
    return true;
}

static void progress_done(struct clerk_note *note, bool kept)
{
    struct progress_note *progress = container_of(note, struct progress_note, note);

    (void)kept;
    if (progress->event.kind == ENGINE_ENDED)
        scheduler_gone(progress->service, &progress->event.id);
    free(progress);
}

void progress_event(void *context, const struct engine_event *event)
{
    struct service *service = context;
    struct progress_note *progress = calloc(1, sizeof(*progress));

    if (!progress) {
        /* A figure may be lost, the end of a plan may not. */
        check(event->kind == ENGINE_PROGRESS || event->kind == ENGINE_WAITING);
        return;
    }
    progress->note.run = progress_run;
    progress->note.done = progress_done;
    progress->note.once =
            event->kind == ENGINE_PROGRESS || event->kind == ENGINE_WAITING;
    progress->service = service;
    progress->event = *event;
    clerk_post(service->clerk, &progress->note);
}
