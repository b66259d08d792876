/* server/http/problems.tbl.h - PROBLEM(slug, title, status, text): the pages at
 * /problems/{slug}, and the errors that http/ itself can give. One row for every slug of
 * api/verdicts.tbl.h; a slug that has several numbers shows the usual one. */
PROBLEM("not-supported", "Not Supported", 501,
        "This build, or this pair of elements, cannot do what was asked. ReturnValue "
        "1. The "
        "detail says what is missing. GET /capabilities lists what is supported.")
PROBLEM("internal", "Unspecified Error", 500,
        "The service lacked something of its own: memory, descriptors, threads. "
        "ReturnValue "
        "2. Nothing was changed; asking again later is safe.")
PROBLEM("timeout", "Timeout", 504,
        "A portal or a device did not answer in time. ReturnValue 3. Look at the far "
        "side, "
        "then ask again.")
PROBLEM("far-side", "Failed", 502,
        "The far side refused, or is not what it was when it was registered. "
        "ReturnValue 4.")
PROBLEM("no-space", "Failed", 507,
        "The pool or the target has no room. ReturnValue 4. The detail names the space "
        "that "
        "is missing.")
PROBLEM("state", "Failed", 409,
        "The present state forbids the operation. ReturnValue 4 or 4097. The "
        "Operations or "
        "Actions of the object list what it allows now.")
PROBLEM("failed", "Failed", 500,
        "The operation failed. ReturnValue 4. The detail says why.")
PROBLEM("invalid-parameter", "Invalid Parameter", 422,
        "A member is missing, unknown, of the wrong type, out of range or at odds with "
        "another. ReturnValue 5. Errors holds one JSON pointer a fault.")
PROBLEM("not-found", "Not Found", 404,
        "There is nothing by that name. Where a method was asked with a reference to "
        "nothing, "
        "ReturnValue is 5.")
PROBLEM("in-use", "In Use", 409,
        "Somebody holds the element. ReturnValue 6. Holders names them, Remedy the "
        "call that "
        "frees it.")
PROBLEM("malformed", "Malformed Request", 400,
        "The request could not be read: broken JSON, a key given twice, a parameter "
        "that is "
        "unknown or given twice, a header that contradicts another. It reached no "
        "method.")
PROBLEM("precondition", "Precondition Failed", 412,
        "If-Match names another revision than the present one. Read the object again.")
PROBLEM("idempotency-key-reused", "Idempotency-Key Reused", 422,
        "The key was used before with another body. Make a new key for a new request.")
PROBLEM("idempotency-key-busy", "Idempotency-Key In Progress", 409,
        "The first request with this key is still under way. Ask again later.")
PROBLEM("overloaded", "Service Unavailable", 503,
        "Too many requests, or too many that wait, or the service is about to stop. "
        "Ask again "
        "after the seconds in Retry-After.")
PROBLEM("method-not-allowed", "Method Not Allowed", 405,
        "The path is known, the method is not one of its own. Allow lists those.")
PROBLEM("too-large", "Content Too Large", 413, "The body is longer than 65536 bytes.")
PROBLEM("uri-too-long", "URI Too Long", 414,
        "The path and query are longer than 4096 bytes.")
PROBLEM("unsupported-media-type", "Unsupported Media Type", 415,
        "A body is application/json in UTF-8, of a PATCH also "
        "application/merge-patch+json, "
        "and not compressed.")
PROBLEM("misdirected", "Misdirected Request", 421,
        "The Host header holds a name that is not ours. Use the address, localhost, or "
        "start "
        "the service with --http-host NAME.")
PROBLEM("foreign-origin", "Forbidden", 403,
        "The Origin header names a page that was not served from here.")
