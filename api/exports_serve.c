/* Served and kept: from rows to who serves them (struct api_exporter, of main), at a call and
 * again at start, and back: reservations that hosts want kept, from a loop to a row. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/exports.h"
#include "replica/base/log.h"
#include "replica/base/scope.h"

enum { KEPT_MAX = 16 << 10, PAGE = 64 };

static const char absent[] =
        "This process serves no iSCSI: it was started with --iscsi none";

/* -- who serves -------------------------------------------------------------------------- */

struct engine *service_engine(struct service *service)
{
    return service->engine;
}

unsigned service_opening_ms(const struct service *service)
{
    return service->options.connect_timeout_ms + 3 * service->options.io_timeout_ms;
}

size_t export_names(char *text, const char **names, size_t room)
{
    size_t count = 0;
    char *rest = text, *name;

    while (count < room && (name = strsep(&rest, "\n")) && *name)
        names[count++] = name;
    return count;
}

static int kept_decode(const char *hex, uint8_t *bytes, size_t *length)
{
    size_t digits = strlen(hex);
    unsigned byte;

    if (digits % 2 || digits / 2 > KEPT_MAX)
        return -EILSEQ;
    for (*length = 0; *length < digits / 2; ++*length) {
        if (sscanf(hex + *length * 2, "%2x", &byte) != 1)
            return -EILSEQ;
        bytes[*length] = (uint8_t)byte;
    }
    return 0;
}

/** What serving one export takes, gathered. */
struct serving {
    struct store_export row;
    struct engine_element element;
    const char *names[BODY_LIST_MAX];
    struct block_chap chap;
    uint8_t kept[KEPT_MAX];
    struct api_export export;
};

static void serving_free(struct serving *serving)
{
    if (serving)
        explicit_bzero(&serving->chap, sizeof(serving->chap));
    free(serving);
}

/** @row with its element and its credentials. */
static int serving_fill(struct service *service, struct store_reader *reader,
        const struct store_export *row, struct serving *serving, struct fault *fault)
{
    struct api_export *export = &serving->export;
    struct store_element element;
    int result = store_get(reader, STORE_ELEMENT, row->id.text, &element);

    if (result)
        return fault_set(fault, result, "its element cannot be read");
    serving->row = *row;
    element_for_engine(&element, &serving->element);
    *export = (struct api_export){ .id = row->id,
        .element = &serving->element,
        .read_only = row->read_only,
        .resumed = written_before(reader, &serving->element),
        .initiators = serving->names,
        .initiator_count =
                export_names(serving->row.initiators, serving->names, BODY_LIST_MAX),
        .kept = serving->kept };
    if (!row->credentials[0])
        return 0;
    export->chap = &serving->chap;
    return engine_credentials(service->engine, row->credentials, &serving->chap, fault);
}

/** What was kept of reservations. While it is served that may change with every command. */
static int serving_recall(
        struct service *service, struct serving *serving, struct fault *fault)
{
    struct store_reader *reader = store_reader_take(service->store, 5000);
    struct store_reservation reservation;
    int result;

    if (!reader)
        return fault_set(fault, -EAGAIN, "every reader of the database is taken");
    result = store_get(reader, STORE_RESERVATION, serving->row.id.text, &reservation);
    if (result == 0)
        result = kept_decode(
                reservation.kept, serving->kept, &serving->export.kept_length);
    store_reader_give(service->store, reader);
    if (result && result != -ENOENT)
        return fault_set(fault, result, "its reservations cannot be read");
    return 0;
}

static int serving_start(struct service *service, struct serving *serving,
        enum export_how how, struct fault *fault)
{
    const struct api_exporter *exporter = service->exporter;
    const struct api_export *export = &serving->export;
    int result = 0;

    if (how == EXPORT_CHANGE)
        return exporter->change(exporter->context, export, fault);
    if (how == EXPORT_REPLACE)
        result = exporter->withdraw(exporter->context, &export->id);
    if (result && result != -ENOENT)
        return fault_set(fault, -EINPROGRESS, "what was served has not ended yet");
    result = serving_recall(service, serving, fault);
    if (result)
        return result;
    return exporter->publish(exporter->context, export, fault);
}

int export_serve_row(struct service *service, const struct store_export *row,
        enum export_how how, struct fault *fault)
{
    const struct api_exporter *exporter = service->exporter;
    struct store_reader *reader;
    struct serving *serving;
    int result;

    if (!exporter)
        return fault_set(fault, -ENODEV, "%s", absent);
    reader = store_reader_take(service->store, 5000);
    if (!reader)
        return fault_set(fault, -EAGAIN, "every reader of the database is taken");
    serving = calloc(1, sizeof(*serving));
    result = serving ? serving_fill(service, reader, row, serving, fault)
                     : fault_set(fault, -ENOMEM, "out of memory");
    store_reader_give(service->store, reader);
    if (result == 0)
        result = serving_start(service, serving, how, fault);
    serving_free(serving);
    return result;
}

/* -- at start -------------------------------------------------------------------------------- */

struct page {
    unsigned count;
    struct store_export rows[PAGE];
};

static bool page_row(void *context, const void *row)
{
    struct page *page = context;

    page->rows[page->count++] = *(const struct store_export *)row;
    return true;
}

/** How many there are; -EBUSY when nobody knows. */
static int page_read(struct service *service, const char *before, struct page *page)
{
    struct store_query query = {
        .table = STORE_EXPORT, .before = before, .limit = PAGE
    };
    struct store_reader *reader = store_reader_take(service->store, 5000);
    int result;

    page->count = 0;
    if (!reader)
        return -EBUSY;
    result = store_list(reader, &query, page_row, page);
    store_reader_give(service->store, reader);
    return result < 0 ? -EBUSY : (int)page->count;
}

/** One that is not served. 0 when it is now, or is not asked for any more. */
static int serve_again(struct service *service, const struct uuid *id)
{
    struct store_reader *reader = store_reader_take(service->store, 5000);
    struct fault fault = { 0 };
    struct store_export row;
    int result;

    if (!reader)
        return -EBUSY;
    result = store_get(reader, STORE_EXPORT, id->text, &row);
    store_reader_give(service->store, reader);
    if (result == -ENOENT)
        return 0;
    if (result == 0)
        result = export_serve_row(service, &row, EXPORT_PUBLISH, &fault);
    if (result && result != -ECANCELED) /* -ENOENT too: what it opens may come back */
        log_event(LOG_WARN, "export-waits", (struct log_about){ .element = id->text },
                "it cannot be served yet: %s", fault.why);
    return result;
}

/** One that was not served, unless somebody has it in hand. False: it is not, or maybe not. */
static bool revive(struct service *service, const struct uuid *id)
{
    const struct api_exporter *exporter = service->exporter;
    int result = 0;

    if (!export_hand_try(service, id))
        return false;
    if (!exporter->serves(exporter->context, id)) /* nor meanwhile */
        result = serve_again(service, id);
    if (result)
        export_hand_rest(service, id);
    else
        export_hand_give(service, id);
    return result == 0;
}

unsigned service_exports_resume(struct service *service)
{
    const struct api_exporter *exporter = service->exporter;
    struct page *page scoped_free = calloc(1, sizeof(*page));
    const char *before = NULL;
    struct uuid last;
    unsigned left = 0;
    int count = page ? 0 : -ENOMEM;

    while (page && exporter && !service->draining &&
            (count = page_read(service, before, page)) > 0) {
        for (unsigned i = 0; i < page->count && !service->draining; i++)
            if (!exporter->serves(exporter->context, &page->rows[i].id))
                left += !revive(service, &page->rows[i].id);
        last = page->rows[page->count - 1].id;
        before = last.text;
    }
    return left +
            (count < 0); /* what could not be looked at is not known to be served */
}

void service_export_by(struct service *service, const struct api_exporter *exporter)
{
    service->exporter = exporter;
}

/* -- reservations that are kept ----------------------------------------------------------- */

struct keeping {
    struct clerk_note note;
    struct uuid id;
    char *hex; /* NULL: nothing is left to keep */
    void (*kept)(void *context, int result);
    void *context;
};

static bool keeping_run(struct clerk_turn *turn, struct clerk_note *note)
{
    struct keeping *keeping = container_of(note, struct keeping, note);
    struct store_reservation row = { .id = keeping->id, .kept = keeping->hex };
    struct store_reservation found;
    struct store_export export;

    /* Kept of what is exported no more, it would be found by the next export. */
    if (keeping->hex && !turn_get(turn, STORE_EXPORT, row.id.text, &export))
        turn->error = turn->error ? turn->error : -ENOENT;
    else if (keeping->hex)
        turn_put(turn, STORE_RESERVATION, &row);
    else if (turn_get(turn, STORE_RESERVATION, row.id.text, &found))
        turn_delete(turn, STORE_RESERVATION, &row);
    return true;
}

static void keeping_done(struct clerk_note *note, bool kept)
{
    struct keeping *keeping = container_of(note, struct keeping, note);

    keeping->kept(keeping->context, kept ? 0 : -EIO);
    free(keeping->hex);
    free(keeping);
}

int service_keep(struct service *service, const struct uuid *element,
        const uint8_t *bytes, size_t length, void (*kept)(void *context, int result),
        void *context)
{
    struct keeping *keeping = calloc(1, sizeof(*keeping));

    if (!keeping || length > KEPT_MAX ||
            (length && !(keeping->hex = malloc(length * 2 + 1)))) {
        free(keeping);
        return length > KEPT_MAX ? -E2BIG : -ENOMEM;
    }
    for (size_t i = 0; i < length; i++)
        (void)snprintf(keeping->hex + i * 2, 3, "%02x", bytes[i]);
    keeping->note = (struct clerk_note){
        .run = keeping_run, .done = keeping_done, .once = true
    };
    keeping->id = *element;
    keeping->kept = kept;
    keeping->context = context;
    clerk_post(service->clerk, &keeping->note);
    return 0;
}
