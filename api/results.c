/* api/results.c - /results: every method call, refused ones too, with its inputs, its
 * caller and its return code. */
#include <stdio.h>

#include "api/resource.h"

static void result_render(struct call *call, struct store_reader *reader,
        struct writer *writer, const void *row)
{
    const struct store_result *result = row;
    char self[64];

    (void)call;
    (void)reader;
    (void)snprintf(self, sizeof(self), "/results/%s", result->id.text);
    writer_text(writer, "Id", result->id.text);
    writer_text(writer, "Self", self);
    writer_text(writer, "MethodName", result->method);
    writer_time(writer, "Time", result->time);
    writer_text(writer, "Caller", result->caller[0] ? result->caller : NULL);
    writer_text(writer, "RequestId", result->request[0] ? result->request : NULL);
    writer_json(
            writer, "InParameters", result->in && result->in[0] ? result->in : "{}");
    writer_signed(writer, "ReturnValue", result->return_value);
    writer_text(writer, "ReturnValueName",
            return_name(result->method, result->return_value));
    writer_text(writer, "Detail", result->detail[0] ? result->detail : NULL);
    writer_path(writer, "Job", "jobs", result->job.text);
    writer_path(writer, "SourceElement", "elements", result->source.text);
    writer_path(writer, "TargetElement", "elements", result->target.text);
}

static const struct list_member list_members[] = {
    { .name = "MethodName", .column = RESULT_METHOD, .type = LIST_TEXT },
    { .name = "ReturnValue",
            .column = RESULT_RETURN,
            .type = LIST_CIM,
            .map = CIM_RETURN_VALUE },
    { .name = "Job",
            .column = RESULT_JOB,
            .type = LIST_REFERENCE,
            .collection = "jobs" },
    { .name = "TargetElement",
            .column = RESULT_TARGET,
            .type = LIST_REFERENCE,
            .collection = "elements" },
    { .name = "Caller", .column = RESULT_CALLER, .type = LIST_TEXT },
};

void call_RESULTS_LIST(struct call *call)
{
    list_serve(call, STORE_RESULT, "/results", list_members,
            sizeof(list_members) / sizeof(list_members[0]), result_render);
}

void call_RESULT_GET(struct call *call)
{
    int64_t never_changes = 1;
    struct store_result row;

    call_get(call, STORE_RESULT, &row, result_render, &never_changes);
}
