/* server/probe.h - `replicad --check-health`: ask a running daemon whether it is ready. */
#ifndef SERVER_PROBE_H
#define SERVER_PROBE_H

/**
 * GET /readyz at @address (numeric ADDR:PORT), at most @ms milliseconds in all. Returns 0 when
 * it answers 200, 1 otherwise, with a line on standard error that says why.
 */
int probe_ready(const char *address, unsigned ms);

#endif
