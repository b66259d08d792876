/* api/jobs.h - what may be asked of a job. Private to api/. */
#ifndef API_JOBS_H
#define API_JOBS_H

#include "api/resource.h"

/** May RequestStateChange ask @request (2 Start .. 5 Kill) of it now? What `Actions`
    lists. */
bool job_allows(const struct store_job *job, int64_t request);

/** It is suspended, and Unquiesce of its pair is what resumes it, not Start. */
bool job_is_quiesced(struct store_reader *reader, const struct store_job *job);

/**
 * While recovery waits for a full disk the rows say what ran when the process before ended:
 * nothing of it runs now, and what was not asked to stop waits for its turn again. So is
 * @job to be shown; once recovery is done, as it stands.
 */
void job_as_it_is(const struct service *service, struct store_job *job);

/**
 * Remove jobs with DeleteOnCompletion whose TimeBeforeRemoval is over, a page a call,
 * in a transaction of its own: none may be open. The clerk's thread. Returns how many
 * went.
 */
unsigned job_sweep(struct service *service);

#endif
