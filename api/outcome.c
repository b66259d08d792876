/* Outcomes: what a call answers, before anybody knows HTTP. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/service.h"

enum { POINTERS = BODY_PROBLEMS_MAX, HOLDERS = 16 };

struct api_problem {
    enum cim_method method; /* how ReturnValueName is spelled */
    bool change; /* RequestStateChange: a map of its own */
    char detail[512];
    unsigned pointers, holders;
    struct {
        char pointer[128], detail[200];
    } pointer[POINTERS];
    char holder[HOLDERS][64];
    char remedy[REMEDY];
};

static void outcome_clear(struct api_outcome *outcome)
{
    free(outcome->body);
    outcome->body = NULL;
    outcome->length = 0;
    free(outcome->problem);
    outcome->problem = NULL;
    outcome->location[0] = outcome->etag[0] = outcome->next[0] = 0;
    outcome->retry_after = 0;
}

void api_outcome_release(struct api_outcome *outcome)
{
    outcome_clear(outcome);
}

void outcome_fail(struct api_outcome *outcome, enum api_verdict verdict,
        int return_value, const char *format, ...)
{
    va_list arguments;

    outcome_clear(outcome);
    outcome->verdict = verdict;
    outcome->return_value = return_value;
    outcome->problem = calloc(1, sizeof(*outcome->problem));
    if (!outcome->problem)
        return; /* the verdict alone says it */
    va_start(arguments, format);
    (void)vsnprintf(outcome->problem->detail, sizeof(outcome->problem->detail), format,
            arguments);
    va_end(arguments);
}

void outcome_pointer(
        struct api_outcome *outcome, const char *pointer, const char *detail)
{
    struct api_problem *problem = outcome->problem;
    unsigned n;

    if (!problem || problem->pointers == POINTERS)
        return;
    n = problem->pointers++;
    (void)snprintf(problem->pointer[n].pointer, sizeof(problem->pointer[n].pointer),
            "%s", pointer);
    (void)snprintf(problem->pointer[n].detail, sizeof(problem->pointer[n].detail), "%s",
            detail);
}

void outcome_holder(struct api_outcome *outcome, const char *path)
{
    struct api_problem *problem = outcome->problem;
    unsigned n;

    if (!problem)
        return;
    for (n = 0; n < problem->holders; n++)
        if (strcmp(problem->holder[n], path) == 0)
            return;
    if (n < HOLDERS)
        (void)snprintf(problem->holder[problem->holders++], sizeof(problem->holder[0]),
                "%s", path);
}

void outcome_holder_of(
        struct api_outcome *outcome, const char *collection, const struct uuid *id)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/%s/%s", collection, id->text);
    outcome_holder(outcome, path);
}

void outcome_remedy(struct api_outcome *outcome, const char *format, ...)
{
    va_list arguments;

    if (!outcome->problem)
        return;
    va_start(arguments, format);
    (void)vsnprintf(outcome->problem->remedy, sizeof(outcome->problem->remedy), format,
            arguments);
    va_end(arguments);
}

void outcome_method(struct api_outcome *outcome, enum cim_method method, bool change)
{
    if (!outcome->problem)
        return;
    outcome->problem->method = method;
    outcome->problem->change = change;
}

const char *outcome_detail(const struct api_outcome *outcome)
{
    return outcome->problem ? outcome->problem->detail : "";
}

/** What an errno of the engine answers: one row an errno, the rest is 4. */
static const struct engine_errno {
    int error;
    enum api_verdict verdict;
    int return_value;
} errnos[] = {
    { ETIMEDOUT, API_TIMEOUT, CIM_TIMEOUT },
    { ECONNREFUSED, API_FAR_SIDE, CIM_FAILED },
    { ECONNRESET, API_FAR_SIDE, CIM_FAILED },
    { ECONNABORTED, API_FAR_SIDE, CIM_FAILED },
    { ENOTCONN, API_FAR_SIDE, CIM_FAILED },
    { EHOSTUNREACH, API_FAR_SIDE, CIM_FAILED },
    { ENETUNREACH, API_FAR_SIDE, CIM_FAILED },
    { EPIPE, API_FAR_SIDE, CIM_FAILED },
    { EACCES, API_FAR_SIDE, CIM_FAILED },
    { ENXIO, API_FAR_SIDE, CIM_FAILED },
    { ENODEV, API_FAR_SIDE, CIM_FAILED },
    { ENOENT, API_FAR_SIDE, CIM_FAILED },
    { ENOTDIR, API_FAR_SIDE, CIM_FAILED },
    { ESTALE, API_FAR_SIDE, CIM_FAILED },
    { EROFS, API_FAR_SIDE, CIM_FAILED },
    { EIO, API_FAR_SIDE, CIM_FAILED },
    { ENOSPC, API_NO_SPACE, CIM_FAILED },
    { EDQUOT, API_NO_SPACE, CIM_FAILED },
    { EFBIG, API_NO_SPACE, CIM_FAILED },
    { EBUSY, API_IN_USE, CIM_IN_USE },
    { EBADE, API_IN_USE, CIM_IN_USE },
    { EPERM, API_INVALID, CIM_INVALID_PARAMETER },
    { ENOKEY, API_INVALID, CIM_INVALID_PARAMETER },
    { ELOOP, API_INVALID, CIM_INVALID_PARAMETER },
    { EXDEV, API_INVALID, CIM_INVALID_PARAMETER },
    { EINVAL, API_INVALID, CIM_INVALID_PARAMETER },
    { ENOMEM, API_INTERNAL, CIM_UNKNOWN },
    { EMFILE, API_INTERNAL, CIM_UNKNOWN },
    { ENFILE, API_INTERNAL, CIM_UNKNOWN },
    { EAGAIN, API_INTERNAL, CIM_UNKNOWN },
    { ECANCELED, API_OVERLOADED, CIM_UNKNOWN },
    { ESHUTDOWN, API_OVERLOADED, CIM_UNKNOWN },
};

int engine_return_value(int error)
{
    for (size_t i = 0; i < sizeof(errnos) / sizeof(*errnos); i++)
        if (errnos[i].error == -error)
            return errnos[i].return_value;
    return CIM_FAILED;
}

/** A file system of our own that fails, or is mounted to be read only, is no far side. */
static bool is_own_failure(int error, const char *address)
{
    return strncmp(address, "pool:", 5) == 0 && (error == -EIO || error == -EROFS);
}

void outcome_engine(struct api_outcome *outcome, const struct fault *fault,
        const char *what, const char *address)
{
    enum api_verdict verdict = API_FAILED;
    int return_value = CIM_FAILED;
    const char *why;

    for (size_t i = 0; i < sizeof(errnos) / sizeof(*errnos); i++)
        if (errnos[i].error == -fault->error) {
            verdict = errnos[i].verdict;
            return_value = errnos[i].return_value;
        }
    if (is_own_failure(fault->error, address))
        verdict = API_FAILED;
    why = fault->why[0] ? fault->why : strerrordesc_np(-fault->error);
    if (strstr(why, what)) /* it says itself what it is about */
        outcome_fail(outcome, verdict, return_value, "%s", why);
    else
        outcome_fail(outcome, verdict, return_value, "%s: %s", what, why);
}

void outcome_body(struct api_outcome *outcome, struct writer **writer)
{
    free(outcome->body);
    outcome->body = writer_finish(writer, &outcome->length);
    if (!outcome->body)
        outcome_fail(outcome, API_INTERNAL,
                outcome->return_value < 0 ? -1 : CIM_UNKNOWN, "out of memory");
}

/* -- tags ------------------------------------------------------------------------------- */

void outcome_etag(struct api_outcome *outcome, int64_t revision)
{
    (void)snprintf(
            outcome->etag, sizeof(outcome->etag), "\"r%lld\"", (long long)revision);
}

/** Does the header's list hold the tag? A weak one (W/) only counts when @weak. */
static bool tags_hold(const char *list, const char *tag, bool weak)
{
    size_t length = strlen(tag);

    while (*list) {
        list += strspn(list, " \t,");
        if (*list == '*')
            return true;
        bool is_weak = strncmp(list, "W/", 2) == 0;
        if (is_weak)
            list += 2;
        if (strncmp(list, tag, length) == 0 && strchr(" \t,", list[length]))
            return !is_weak || weak;
        list += strcspn(list, ",");
    }
    return false;
}

bool outcome_if_match(struct call *call, int64_t revision)
{
    struct api_outcome probe = { 0 };

    outcome_etag(&probe, revision);
    if (!call->request->if_match ||
            tags_hold(call->request->if_match, probe.etag, false))
        return true;
    outcome_fail(call->outcome, API_PRECONDITION, -1,
            "it has changed: its tag is now %s", probe.etag);
    return false;
}

bool outcome_if_none_match(struct call *call, int64_t revision)
{
    struct api_outcome probe = { 0 };

    outcome_etag(&probe, revision);
    if (!call->request->if_none_match ||
            !tags_hold(call->request->if_none_match, probe.etag, true))
        return false;
    outcome_clear(call->outcome);
    call->outcome->verdict = API_NOT_MODIFIED;
    outcome_etag(call->outcome, revision);
    return true;
}

/* -- problem documents ------------------------------------------------------------------ */

static const struct verdict_words {
    const char *slug, *title;
} verdict_words[] = {
#define VERDICT(symbol, slug, title) { slug, title },
#include "api/verdicts.tbl.h"
#undef VERDICT
};

static void problem_head(struct writer *writer, const char *slug, const char *title,
        int status, const char *detail)
{
    char type[96];

    (void)snprintf(type, sizeof(type), "/problems/%s", *slug ? slug : "internal");
    writer_text(writer, "type", type);
    writer_text(writer, "title", *title ? title : "Unspecified Error");
    writer_signed(writer, "status", status);
    if (detail && *detail)
        writer_text(writer, "detail", detail);
}

static void problem_return(
        struct writer *writer, const struct api_problem *problem, int value)
{
    const char *name;

    if (value < 0)
        return;
    writer_signed(writer, "ReturnValue", value);
    if (problem && problem->change)
        name = cim_name(CIM_REQUEST_RETURN, value);
    else
        name = cim_return_name(problem ? problem->method : CIM_OTHER_METHOD, value);
    writer_text(writer, "ReturnValueName", name);
}

static void problem_lists(struct writer *writer, const struct api_problem *problem)
{
    if (problem->pointers)
        writer_array(writer, "Errors");
    for (unsigned i = 0; i < problem->pointers; i++) {
        writer_object(writer, NULL);
        writer_text(writer, "Pointer", problem->pointer[i].pointer);
        writer_text(writer, "Detail", problem->pointer[i].detail);
        writer_end(writer);
    }
    if (problem->pointers)
        writer_end(writer);
    if (problem->holders)
        writer_array(writer, "Holders");
    for (unsigned i = 0; i < problem->holders; i++)
        writer_text(writer, NULL, problem->holder[i]);
    if (problem->holders)
        writer_end(writer);
    if (problem->remedy[0])
        writer_text(writer, "Remedy", problem->remedy);
}

char *api_problem_render(const struct api_outcome *outcome, int status,
        const char *request_id, size_t *length)
{
    const struct verdict_words *words = &verdict_words[outcome->verdict];
    const struct api_problem *problem = outcome->problem;
    struct writer *writer = writer_create();

    if (!writer)
        return NULL;
    problem_head(writer, words->slug, words->title, status,
            problem ? problem->detail : NULL);
    problem_return(writer, problem, outcome->return_value);
    if (problem)
        problem_lists(writer, problem);
    if (request_id)
        writer_text(writer, "RequestId", request_id);
    return writer_finish(&writer, length);
}

char *api_problem_plain(const char *slug, const char *title, int status,
        const char *detail, const char *request_id, size_t *length)
{
    struct writer *writer = writer_create();

    if (!writer)
        return NULL;
    problem_head(writer, slug, title, status, detail);
    if (request_id)
        writer_text(writer, "RequestId", request_id);
    return writer_finish(&writer, length);
}
