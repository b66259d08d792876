/* libcyaml's schema is made of the rows of options.tbl.h. Every value is loaded as text, so
 * that one parser, options.c, checks ranges and finds the words for both sources.
 */
#include "server/config.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct retention {
    char *days, *rows;
};

struct document {
#define ONE(symbol, name, argument, help) char *symbol;
#define LIST(symbol, name, argument, help)                                             \
    char **symbol;                                                                     \
    unsigned symbol##_count;
#define FLAG(symbol, name, help) char *symbol;
#include "server/options.tbl.h"
#undef ONE
#undef LIST
#undef FLAG
    struct retention *retention;
};

enum { TEXT_MAX = 4096, LIST_MAX = 256 };

static const cyaml_schema_value_t item = { CYAML_VALUE_STRING(
        CYAML_FLAG_POINTER, char *, 1, TEXT_MAX) };

static const cyaml_schema_field_t retention_fields[] = {
    CYAML_FIELD_STRING_PTR("days", CYAML_FLAG_OPTIONAL, struct retention, days, 1, 20),
    CYAML_FIELD_STRING_PTR("rows", CYAML_FLAG_OPTIONAL, struct retention, rows, 1, 20),
    CYAML_FIELD_END
};

static const cyaml_schema_field_t fields[] = {
#define ONE(symbol, name, argument, help)                                              \
    CYAML_FIELD_STRING_PTR(                                                            \
            name, CYAML_FLAG_OPTIONAL, struct document, symbol, 1, TEXT_MAX),
#define LIST(symbol, name, argument, help)                                             \
    CYAML_FIELD_SEQUENCE(name, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,               \
            struct document, symbol, &item, 0, LIST_MAX),
#define FLAG(symbol, name, help)                                                       \
    CYAML_FIELD_STRING_PTR(                                                            \
            name, CYAML_FLAG_OPTIONAL, struct document, symbol, 1, TEXT_MAX),
#include "server/options.tbl.h"
#undef ONE
#undef LIST
#undef FLAG
    CYAML_FIELD_MAPPING_PTR("retention", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
            struct document, retention, retention_fields),
    CYAML_FIELD_END
};

static const cyaml_schema_value_t schema = { CYAML_VALUE_MAPPING(
        CYAML_FLAG_POINTER, struct document, fields) };

/* The first line says what, a later one where: "in mapping field 'x' (line: 3, ...". */
struct complaint {
    char what[100], where[100];
};

__attribute__((format(printf, 3, 0))) static void complaint_log(
        cyaml_log_t level, void *context, const char *format, va_list arguments)
{
    struct complaint *complaint = context;
    char line[200];
    const char *text = line, *place;

    if (level < CYAML_LOG_ERROR)
        return;
    (void)vsnprintf(line, sizeof(line), format, arguments);
    line[strcspn(line, "\n")] = '\0';
    if (strncmp(text, "Load: ", 6) == 0)
        text += 6;
    place = strstr(text, "(line:") ? text + strspn(text, " ") : NULL;
    if (!complaint->what[0])
        (void)snprintf(complaint->what, sizeof(complaint->what), "%.99s", text);
    if (place && !complaint->where[0])
        (void)snprintf(complaint->where, sizeof(complaint->where), ", %.96s", place);
}

bool option_add(struct option_values *values, const char *text)
{
    char **grown = realloc(values->items, (values->count + 2) * sizeof(*grown));

    if (!grown)
        return false;
    values->items = grown;
    grown[values->count] = strdup(text);
    grown[values->count + 1] = NULL;
    return grown[values->count] && ++values->count;
}

static bool values_take(struct option_values *values, char *const *items, size_t count)
{
    bool good = true;

    if (values->count > 0)
        return true; /* the command line said something */
    for (size_t i = 0; i < count && good; i++)
        good = option_add(values, items[i]);
    return good;
}

static bool document_take(const struct document *document, struct options *options,
        struct config_extra *extra)
{
    bool good = true;

#define ONE(symbol, name, argument, help)                                              \
    good = good &&                                                                     \
            values_take(&options->values[OPTION_##symbol], &document->symbol,          \
                    document->symbol ? 1 : 0);
#define LIST(symbol, name, argument, help)                                             \
    good = good &&                                                                     \
            values_take(&options->values[OPTION_##symbol], document->symbol,           \
                    document->symbol##_count);
#define FLAG(symbol, name, help) ONE(symbol, name, "", help)
#include "server/options.tbl.h"
#undef ONE
#undef LIST
#undef FLAG
    if (good && document->retention && document->retention->days)
        good = (extra->retention_days = strdup(document->retention->days)) != NULL;
    if (good && document->retention && document->retention->rows)
        good = (extra->retention_rows = strdup(document->retention->rows)) != NULL;
    return good;
}

int config_read(const char *path, struct options *options, struct config_extra *extra,
        char why[OPTION_WHY])
{
    struct complaint complaint = { 0 };
    const cyaml_config_t config = {
        .log_fn = complaint_log,
        .log_ctx = &complaint,
        .mem_fn = cyaml_mem,
        .log_level = CYAML_LOG_ERROR,
        .flags = CYAML_CFG_DEFAULT | CYAML_CFG_NO_ALIAS,
    };
    struct document *document = NULL;
    cyaml_err_t result;
    bool good;

    errno = 0; /* the library says only that it could not open the file, not why */
    result = cyaml_load_file(
            path, &config, &schema, (cyaml_data_t **)(void *)&document, NULL);
    if (result == CYAML_ERR_FILE_OPEN) {
        (void)snprintf(why, OPTION_WHY, "configuration %.60s: %s", path,
                errno ? strerrordesc_np(errno) : cyaml_strerror(result));
        return -EINVAL;
    }
    if (result != CYAML_OK) {
        (void)snprintf(why, OPTION_WHY, "configuration %.60s: %.60s%.99s", path,
                complaint.what[0] ? complaint.what : cyaml_strerror(result),
                complaint.where);
        return -EINVAL;
    }
    good = !document || document_take(document, options, extra);
    (void)cyaml_free(&config, &schema, document, 0);
    if (!good)
        (void)snprintf(why, OPTION_WHY, "out of memory");
    return good ? 0 : -EINVAL;
}
