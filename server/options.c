#include "server/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "replica/base/scope.h"
#include "server/config.h"
#include "server/http/endpoint.h"

enum kind { KIND_ONE, KIND_LIST, KIND_FLAG };

static const struct row {
    const char *name, *argument, *help;
    enum kind kind;
} rows[OPTION_COUNT] = {
#define ONE(symbol, name, argument, help) { name, argument, help, KIND_ONE },
#define LIST(symbol, name, argument, help) { name, argument, help, KIND_LIST },
#define FLAG(symbol, name, help) { name, "", help, KIND_FLAG },
#include "server/options.tbl.h"
#undef ONE
#undef LIST
#undef FLAG
};

/* What only the command line knows. */
enum { CONFIG = OPTION_COUNT, CHECK_HEALTH, HELP, VERSION, TABLE_END };

static int refuse(char why[OPTION_WHY], enum option_id option, const char *value,
        const char *wanted)
{
    (void)snprintf(why, OPTION_WHY, "--%s %.80s: %s", rows[option].name, value, wanted);
    return -EINVAL;
}

const char *options_text(const struct options *options, enum option_id option)
{
    return options->values[option].count > 0 ? options->values[option].items[0] : NULL;
}

/* -- the command line ---------------------------------------------------------------- */

static void table_fill(struct option table[TABLE_END + 1])
{
    for (int i = 0; i < OPTION_COUNT; i++)
        table[i] = (struct option){ rows[i].name,
            rows[i].kind == KIND_FLAG ? no_argument : required_argument, NULL,
            256 + i };
    table[CONFIG] = (struct option){ "config", required_argument, NULL, 256 + CONFIG };
    table[CHECK_HEALTH] = (struct option){ "check-health", required_argument, NULL,
        256 + CHECK_HEALTH };
    table[HELP] = (struct option){ "help", no_argument, NULL, 256 + HELP };
    table[VERSION] = (struct option){ "version", no_argument, NULL, 256 + VERSION };
    table[TABLE_END] = (struct option){ 0 };
}

static int value_take(
        struct options *options, enum option_id option, char why[OPTION_WHY])
{
    struct option_values *values = &options->values[option];
    const char *text = rows[option].kind == KIND_FLAG ? "true" : optarg;

    if (rows[option].kind == KIND_ONE && values->count > 0)
        return refuse(why, option, text, "the option is given twice");
    if (rows[option].kind == KIND_FLAG && values->count > 0)
        return 0;
    if (option_add(values, text))
        return 0;
    (void)snprintf(why, OPTION_WHY, "out of memory");
    return -EINVAL;
}

static int arguments_read(struct options *options, int argc, char **argv,
        const char **config, char why[OPTION_WHY])
{
    struct option table[TABLE_END + 1];
    int found, result = 0;

    table_fill(table);
    optind = 0; /* start over: the tests read many command lines */
    opterr = 0; /* one line of our own */
    while (result == 0 && (found = getopt_long(argc, argv, ":", table, NULL)) != -1) {
        int option = found - 256;

        if (found == '?' || found == ':') {
            (void)snprintf(why, OPTION_WHY, "%.80s: %s", argv[optind - 1],
                    found == ':' ? "the option needs a value"
                                 : "there is no such option");
            result = -EINVAL;
        } else if (option == CONFIG) {
            *config = optarg;
        } else if (option == CHECK_HEALTH) {
            options->check_health = optarg;
        } else if (option == HELP) {
            options->help = true;
        } else if (option == VERSION) {
            options->version = true;
        } else {
            result = value_take(options, (enum option_id)option, why);
        }
    }
    if (result == 0 && optind < argc) {
        (void)snprintf(why, OPTION_WHY, "%.80s: only options are taken", argv[optind]);
        result = -EINVAL;
    }
    return result;
}

/* -- what the values mean ------------------------------------------------------------- */

/* Digits only, @least to @most. */
static bool number_parse(
        const char *text, uint64_t least, uint64_t most, uint64_t *number)
{
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > 18 || text[digits])
        return false;
    *number = strtoull(text, NULL, 10);
    return *number >= least && *number <= most;
}

static int unsigned_settle(struct options *options, enum option_id option,
        unsigned least, unsigned most, unsigned *value, char why[OPTION_WHY])
{
    const char *text = options_text(options, option);
    uint64_t number = 0;
    char wanted[64];

    if (!text)
        return 0;
    if (!number_parse(text, least, most, &number)) {
        (void)snprintf(wanted, sizeof(wanted), "a number from %u to %u is wanted",
                least, most);
        return refuse(why, option, text, wanted);
    }
    *value = (unsigned)number;
    return 0;
}

static int numbers_settle(struct options *options, char why[OPTION_WHY])
{
    int result = unsigned_settle(
            options, OPTION_CONNECT_TIMEOUT, 1, 300, &options->connect_timeout_s, why);

    if (result == 0)
        result = unsigned_settle(
                options, OPTION_IO_TIMEOUT, 1, 3600, &options->io_timeout_s, why);
    if (result == 0)
        result =
                unsigned_settle(options, OPTION_WORKERS, 1, 64, &options->workers, why);
    if (result == 0)
        result = unsigned_settle(
                options, OPTION_MAX_JOBS, 1, 1024, &options->max_jobs, why);
    return result;
}

static int limit_settle(struct options *options, char why[OPTION_WHY])
{
    const char *text = options_text(options, OPTION_BANDWIDTH_LIMIT);

    if (text && !number_parse(text, 0, UINT64_MAX, &options->bandwidth_limit))
        return refuse(why, OPTION_BANDWIDTH_LIMIT, text,
                "a number of bytes a second is wanted");
    return 0;
}

static int words_settle(struct options *options, char why[OPTION_WHY])
{
    const char *flag = options_text(options, OPTION_HTTP_UNPROTECTED);
    const char *level = options_text(options, OPTION_LOG_LEVEL);
    const char *format = options_text(options, OPTION_LOG_FORMAT);

    if (flag && strcmp(flag, "true") != 0 && strcmp(flag, "false") != 0)
        return refuse(why, OPTION_HTTP_UNPROTECTED, flag, "true or false is wanted");
    options->http_unprotected = flag && strcmp(flag, "true") == 0;
    if (level && !log_level_parse(level, &options->log_level))
        return refuse(
                why, OPTION_LOG_LEVEL, level, "error, warn, info or debug is wanted");
    if (format && strcmp(format, "json") != 0 && strcmp(format, "text") != 0)
        return refuse(why, OPTION_LOG_FORMAT, format, "json or text is wanted");
    options->log_json = format ? strcmp(format, "json") == 0 : !isatty(STDERR_FILENO);
    return 0;
}

static int retention_settle(
        struct options *options, const struct config_extra *extra, char why[OPTION_WHY])
{
    uint64_t days = 0;

    if (extra->retention_days && !number_parse(extra->retention_days, 1, 3650, &days)) {
        (void)snprintf(why, OPTION_WHY,
                "retention days %.40s: a number from 1 to 3650 is wanted",
                extra->retention_days);
        return -EINVAL;
    }
    options->retention_days = (unsigned)days;
    if (extra->retention_rows &&
            !number_parse(
                    extra->retention_rows, 1, 10000000, &options->retention_rows)) {
        (void)snprintf(why, OPTION_WHY,
                "retention rows %.40s: a number from 1 to 10000000 is wanted",
                extra->retention_rows);
        return -EINVAL;
    }
    return 0;
}

static int addresses_settle(
        const struct options *options, enum option_id option, char why[OPTION_WHY])
{
    struct endpoint address;

    for (size_t i = 0; i < options->values[option].count; i++) {
        const char *text = options->values[option].items[i];

        if (!endpoint_parse(text, &address))
            return refuse(why, option, text, "a numeric ADDR:PORT is wanted");
        if (option == OPTION_HTTP && !options->http_unprotected &&
                !endpoint_is_loopback(&address))
            return refuse(why, option, text,
                    "only loopback without --http-unprotected, there is no login yet");
    }
    return 0;
}

/* "none" alone, or addresses. */
static int iscsi_settle(struct options *options, char why[OPTION_WHY])
{
    const struct option_values *values = &options->values[OPTION_ISCSI];

    options->iscsi_none = values->count == 1 && strcmp(values->items[0], "none") == 0;
    return options->iscsi_none ? 0 : addresses_settle(options, OPTION_ISCSI, why);
}

static int hosts_settle(const struct options *options, char why[OPTION_WHY])
{
    static const char allowed[] =
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.";
    const struct option_values *values = &options->values[OPTION_HTTP_HOST];

    for (size_t i = 0; i < values->count; i++) {
        size_t length = strlen(values->items[i]);

        if (length == 0 || length > 253 || strspn(values->items[i], allowed) != length)
            return refuse(why, OPTION_HTTP_HOST, values->items[i],
                    "a host name without a port is wanted");
    }
    return 0;
}

/* RFC 3720, 3.2.6: "iqn.", a month, a name; what we make of it must stay under 223 bytes. */
static int iqn_settle(
        const struct options *options, enum option_id option, char why[OPTION_WHY])
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-.:";
    const char *text = options_text(options, option);
    size_t length = text ? strlen(text) : 0;

    if (!text)
        return 0;
    if (strncmp(text, "iqn.", 4) != 0 || length < 12 || length > 180 ||
            strspn(text, allowed) != length)
        return refuse(
                why, option, text, "a name as iqn.2026-11.org.example:us is wanted");
    return 0;
}

static int directories_settle(const struct options *options, char why[OPTION_WHY])
{
    static const enum option_id directories[] = { OPTION_DATA_DIR, OPTION_CREDENTIALS };

    for (size_t i = 0; i < sizeof(directories) / sizeof(directories[0]); i++) {
        const char *text = options_text(options, directories[i]);
        if (text && !*text)
            return refuse(why, directories[i], text, "a directory is wanted");
    }
    return 0;
}

static int pool_settle(struct options *options, const char *text, char why[OPTION_WHY])
{
    static const char allowed[] =
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t length = strspn(text, allowed);
    struct option_pool *pool = &options->pools[options->pool_count];

    if (length == 0 || length > 64 || *text == '.' || text[length] != '=' ||
            !text[length + 1])
        return refuse(why, OPTION_POOL, text, "NAME=DIR is wanted");
    for (size_t i = 0; i < options->pool_count; i++)
        if (strlen(options->pools[i].name) == length &&
                strncmp(options->pools[i].name, text, length) == 0)
            return refuse(why, OPTION_POOL, text, "the name is taken by another pool");
    pool->name = strndup(text, length);
    pool->path = strdup(text + length + 1);
    options->pool_count++;
    if (pool->name && pool->path)
        return 0;
    (void)snprintf(why, OPTION_WHY, "out of memory");
    return -EINVAL;
}

static int pools_settle(struct options *options, char why[OPTION_WHY])
{
    const struct option_values *values = &options->values[OPTION_POOL];
    int result = 0;

    options->pools = calloc(values->count + 1, sizeof(*options->pools));
    if (!options->pools) {
        (void)snprintf(why, OPTION_WHY, "out of memory");
        return -EINVAL;
    }
    for (size_t i = 0; i < values->count && result == 0; i++)
        result = pool_settle(options, values->items[i], why);
    return result;
}

static int options_settle(struct options *options, char why[OPTION_WHY])
{
    int result = numbers_settle(options, why);

    if (result == 0)
        result = limit_settle(options, why);
    if (result == 0)
        result = words_settle(options, why);
    if (result == 0)
        result = addresses_settle(options, OPTION_HTTP, why);
    if (result == 0)
        result = addresses_settle(options, OPTION_HEALTH, why);
    if (result == 0)
        result = iscsi_settle(options, why);
    if (result == 0)
        result = hosts_settle(options, why);
    if (result == 0)
        result = iqn_settle(options, OPTION_INITIATOR_NAME, why);
    if (result == 0)
        result = iqn_settle(options, OPTION_IQN_PREFIX, why);
    if (result == 0)
        result = directories_settle(options, why);
    if (result == 0)
        result = pools_settle(options, why);
    return result;
}

int options_parse(struct options *options, int argc, char **argv, char why[OPTION_WHY])
{
    struct config_extra extra = { 0 };
    const char *config = NULL;
    int result;

    *options = (struct options){ .connect_timeout_s = 5,
        .io_timeout_s = 30,
        .log_level = LOG_INFO,
        .argc = argc,
        .argv = argv };
    result = arguments_read(options, argc, argv, &config, why);
    if (result == 0 && (options->help || options->version || options->check_health))
        return 0;
    if (result == 0 && config)
        result = config_read(config, options, &extra, why);
    if (result == 0)
        result = options_settle(options, why);
    if (result == 0)
        result = retention_settle(options, &extra, why);
    free(extra.retention_days);
    free(extra.retention_rows);
    return result;
}

void options_finish(struct options *options)
{
    for (int i = 0; i < OPTION_COUNT; i++) {
        for (size_t n = 0; n < options->values[i].count; n++)
            free(options->values[i].items[n]);
        free(options->values[i].items);
    }
    for (size_t i = 0; i < options->pool_count; i++) {
        free(options->pools[i].name);
        free(options->pools[i].path);
    }
    free(options->pools);
    *options = (struct options){ 0 };
}

void options_help(FILE *out)
{
    fprintf(out,
            "usage: replicad [OPTION]...\n"
            "       replicad --check-health ADDR:PORT\n\n");
    fprintf(out, "  %-40s %s\n", "--config FILE",
            "YAML with keys of the options' names");
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        char left[64];
        (void)snprintf(left, sizeof(left), "--%s %s%s", rows[i].name, rows[i].argument,
                rows[i].kind == KIND_LIST ? "..." : "");
        fprintf(out, "  %-40s %s\n", left, rows[i].help);
    }
    fprintf(out, "  %-40s %s\n", "--check-health ADDR:PORT",
            "exit 0 when /readyz answers 200 there, else 1");
    fprintf(out, "  %-40s %s\n", "--version", "print it");
}
