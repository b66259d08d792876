/* From rows to the engine's plan: who is read, who is written, how. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/exports.h"

/** A pipe's limit is for all that go over it; its credentials are for the far side: the
    pair's target. */
static void plan_pipe(struct clerk_turn *turn, const struct store_replica *replica,
        struct engine_plan *plan, struct engine_element *target)
{
    struct store_pipe pipe;

    if (uuid_is_none(&replica->pipe) ||
            !turn_get(turn, STORE_PIPE, replica->pipe.text, &pipe))
        return;
    plan->pipe = pipe.id;
    plan->pipe_limit = pipe.limit;
    if (!pipe.credentials[0])
        return;
    (void)snprintf(
            target->credentials, sizeof(target->credentials), "%s", pipe.credentials);
}

static enum engine_work plan_work(const struct store_job *job)
{
    if (!job)
        return ENGINE_DELTA;
    switch ((enum job_work)job->work) {
    case JOB_COPY:
        return ENGINE_COPY;
    case JOB_PREPARE:
        return ENGINE_HOLD;
    case JOB_VERIFY:
        return ENGINE_VERIFY;
    case JOB_RESYNC:
    case JOB_RESTORE:
        break;
    }
    return ENGINE_DELTA;
}

unsigned plan_priority(int64_t priority)
{
    return priority < 0 || priority > 3 ? 3 : (unsigned)priority;
}

static void plan_counters(struct engine_plan *plan, const struct store_job *job)
{
    plan->resumed = job->started != 0 || job->resumed;
    /* What a run before wrote past the watermark may be anything. */
    plan->target_zero = job->target_zero && !plan->resumed;
    plan->verify = job->verify;
    plan->watermark = job->watermark;
    plan->verified = job->verified;
    differences_of(job, &plan->differences);
    plan->skipped = job->skipped;
    plan->equal = job->skipped_equal;
    plan->written = job->written;
    plan->read = job->read;
    plan->limit = job->limit;
    plan->priority = plan_priority(job->priority);
}

bool plan_build(struct clerk_turn *turn, const struct store_replica *replica,
        const struct store_job *job, struct engine_plan *plan, struct fault *fault)
{
    bool back = job && job->work == JOB_RESTORE;
    const struct uuid *from = back ? &replica->id : &replica->source;
    const struct uuid *to = back ? &replica->source : &replica->id;
    struct store_element element;

    memset(plan, 0, sizeof(*plan));
    plan->work = plan_work(job);
    plan->id = job && plan->work != ENGINE_HOLD ? job->id : replica->id;
    /* Named by what is written. A source that is restored is its owner's, who writes it
       behind our back; a pair that ends with its copy is never compared again. */
    plan->pair = *to;
    plan->forget = back || replica->copy_type == CIM_COPY_UNSYNC_UNASSOC;
    if (!turn_get(turn, STORE_ELEMENT, from->text, &element)) {
        fault_set(fault, -ENOENT, "the source's element is gone");
        return false;
    }
    if (!element_complete(turn->reader, &element) && plan->work != ENGINE_HOLD) {
        fault_set(fault, -EBUSY, "the source is not complete any more");
        return false;
    }
    element_for_engine(&element, &plan->source);
    if (!turn_get(turn, STORE_ELEMENT, to->text, &element)) {
        fault_set(fault, -ENOENT, "the target's element is gone");
        return false;
    }
    element_for_engine(&element, &plan->target);
    if (back && plan->source.size > plan->target.size)
        plan->source.size = plan->target.size; /* a larger replica: what was copied */
    plan_pipe(turn, replica, plan, back ? &plan->source : &plan->target);
    plan->priority = plan_priority(job_priority_of(replica->copy_priority));
    plan->limit = replica->limit;
    plan->resumed = replica->scan_started != 0; /* a scan that never told its end */
    if (job)
        plan_counters(plan, job);
    if (!plan->resumed)
        plan->resumed = written_before(turn->reader, &plan->target);
    return true;
}
