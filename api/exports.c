/* api/exports.c - /elements/{id}/export: what the iSCSI target serves. It serves
 * nothing yet, so no element has an export and none can be made. */
#include "api/resource.h"

void call_EXPORT_GET(struct call *call)
{
    struct store_reader *reader = call_no_query(call) ? call_reader(call) : NULL;
    struct store_element row;

    if (!reader)
        return;
    if (call_find(call, reader, STORE_ELEMENT, &row))
        outcome_fail(call->outcome, API_NOT_FOUND, -1, "The element is not exported");
    store_reader_give(call->service->store, reader);
}

static void refuse(struct call *call)
{
    struct store_reader *reader = call_reader(call);
    struct store_element row;

    if (!reader)
        return;
    if (call_find(call, reader, STORE_ELEMENT, &row))
        outcome_fail(call->outcome, API_NOT_SUPPORTED, CIM_NOT_SUPPORTED,
                "This build has no iSCSI target to export it by");
    store_reader_give(call->service->store, reader);
}

void call_EXPORT_PUT(struct call *call)
{
    refuse(call);
}

void call_EXPORT_DELETE(struct call *call)
{
    refuse(call);
}
