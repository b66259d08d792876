/* api/verdicts.tbl.h - VERDICT(symbol, slug of /problems/..., title). "" slug: no error. */
VERDICT(DONE, "", "")                    /* changed or read */
VERDICT(MADE, "", "")                    /* a new object; Location */
VERDICT(STARTED, "", "")                 /* 4096; Location of the job */
VERDICT(GONE, "", "")                    /* deleted; no body */
VERDICT(NOT_MODIFIED, "", "")            /* If-None-Match holds */
VERDICT(NOT_SUPPORTED, "not-supported", "Not Supported")         /* 1 */
VERDICT(INTERNAL, "internal", "Unspecified Error")               /* 2 */
VERDICT(TIMEOUT, "timeout", "Timeout")                           /* 3 */
VERDICT(FAR_SIDE, "far-side", "Failed")                          /* 4: refused or changed far side */
VERDICT(NO_SPACE, "no-space", "Failed")                          /* 4: no room */
VERDICT(STATE, "state", "Failed")                                /* 4, 4097: the state forbids it */
VERDICT(FAILED, "failed", "Failed")                              /* 4: otherwise */
VERDICT(INVALID, "invalid-parameter", "Invalid Parameter")       /* 5 */
VERDICT(NO_REFERENCE, "not-found", "Invalid Parameter")          /* 5: a reference to nothing */
VERDICT(IN_USE, "in-use", "In Use")                              /* 6 */
VERDICT(NOT_FOUND, "not-found", "Not Found")                     /* no method: no such object */
VERDICT(MALFORMED, "malformed", "Malformed Request")             /* never reached the method */
VERDICT(PRECONDITION, "precondition", "Precondition Failed")     /* If-Match */
VERDICT(KEY_REUSED, "idempotency-key-reused", "Idempotency-Key Reused")
VERDICT(KEY_BUSY, "idempotency-key-busy", "Idempotency-Key In Progress")
VERDICT(OVERLOADED, "overloaded", "Service Unavailable")         /* try again later */
