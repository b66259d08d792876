/* The order of life: process settings, signals, service (which recovers), the iSCSI target,
 * listeners, the ready line; and of death: readiness fails and waiters wake, listeners take no
 * more, what is under way is answered, daemons stop, the target lets its sessions go, copies
 * drain, service ends; where a device never ends what it has, all is left as if killed. Signals
 * are blocked in every thread and waited for in this one, so that no handler runs in the middle
 * of anything; only the second request to stop has a handler, because by then this thread is
 * busy stopping.
 */
#include "server/lifetime.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/api.h"
#include "replica/base/scope.h"
#include "replica/base/trace.h"
#include "server/directory.h"
#include "server/exports.h"
#include "server/http/http.h"
#include "server/notify.h"

enum {
    FINISH_MS = 10 * 1000, /* requests under way when the stop comes */
    RETENTION_DAYS = 30,
    RETENTION_ROWS = 100000,
    MAX_JOBS = 4,
};

static const char iscsi_default[] = "127.0.0.1:3260";
static const char http_default[] = "127.0.0.1:8080";
static const char iqn_prefix_default[] = "iqn.2026-11.org.replicad";

struct life {
    char *data, *pool_path; /* owned */
    unsigned workers;
    sigset_t signals;
    struct service *service;
    struct exports *exports; /* NULL: --iscsi none */
    struct http *http;
};

extern char **environ;

/* -- the process ---------------------------------------------------------------------- */

/* libiscsi obeys variables of its own, among them one that logs secrets. */
static void environment_clean(void)
{
    for (char **entry = environ; *entry;) {
        char name[64];
        size_t length = strcspn(*entry, "=");

        if (strncmp(*entry, "LIBISCSI_", 9) == 0 && length < sizeof(name)) {
            memcpy(name, *entry, length);
            name[length] = '\0';
            (void)unsetenv(name);
            entry = environ; /* the list has moved */
        } else {
            entry++;
        }
    }
}

/* A socket must never become standard output. */
static void descriptors_fill(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        (void)close(fd);
}

static void descriptors_raise(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* libuv makes its pool at the first call that needs it and reads the size then: 16 threads,
   and 8 a loop, so that a stuck disk does not stop the others. */
static unsigned workers_settle(unsigned wanted)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned workers = wanted ? wanted
            : cores < 1       ? 1
            : cores > 64      ? 64
                              : (unsigned)cores;
    char text[16];

    (void)snprintf(text, sizeof(text), "%u", 16 + 8 * workers);
    (void)setenv("UV_THREADPOOL_SIZE", text, 1);
    return workers;
}

static void signals_block(sigset_t *signals)
{
    (void)signal(SIGPIPE, SIG_IGN);
    sigemptyset(signals);
    sigaddset(signals, SIGTERM);
    sigaddset(signals, SIGINT);
    sigaddset(signals, SIGHUP);
    sigaddset(signals, SIGUSR1);
    (void)sigprocmask(SIG_BLOCK, signals, NULL);
}

static void process_prepare(struct life *life, const struct options *options)
{
    descriptors_fill();
    log_setup(options->log_level, options->log_json);
    environment_clean();
    (void)umask(077);
    (void)prctl(PR_SET_DUMPABLE, 0); /* secrets stay out of core files */
    descriptors_raise();
    life->workers = workers_settle(options->workers);
    signals_block(&life->signals);
}

/* -- start ---------------------------------------------------------------------------- */

static int start_refuse(const char *why)
{
    (void)fprintf(stderr, "replicad: cannot start: %s\n", why);
    return -1;
}

static struct api_pool *pools_make(
        struct life *life, const struct options *options, struct fault *fault)
{
    struct api_pool *pools = calloc(options->pool_count + 1, sizeof(*pools));
    int result;

    if (!pools)
        return NULL;
    for (size_t i = 0; i < options->pool_count; i++)
        pools[i] = (struct api_pool){ options->pools[i].name, options->pools[i].path };
    if (options->pool_count > 0)
        return pools;
    if (asprintf(&life->pool_path, "%s/pools/default", life->data) < 0) {
        life->pool_path = NULL;
        free(pools);
        return NULL;
    }
    result = directory_make(life->pool_path);
    if (result != 0) {
        (void)fault_set(fault, result, "the default pool: %s", strerror(-result));
        free(pools);
        return NULL;
    }
    pools[0] = (struct api_pool){ "default", life->pool_path };
    return pools;
}

static int service_start(struct life *life, const struct options *options)
{
    const struct option_values *portals = &options->values[OPTION_ALLOW_PORTAL];
    const char *prefix = options_text(options, OPTION_IQN_PREFIX);
    struct fault fault = { -ENOMEM, "out of memory" };
    scoped_free struct api_pool *pools = NULL;

    life->data = directory_choose(options_text(options, OPTION_DATA_DIR), &fault);
    pools = life->data ? pools_make(life, options, &fault) : NULL;
    if (!pools)
        return start_refuse(fault.why);
    life->service = service_create(
            &(struct api_options){
                    .data_directory = life->data,
                    .pools = pools,
                    .pool_count = options->pool_count ? options->pool_count : 1,
                    .allow_portals = (const char *const *)portals->items,
                    .allow_count = portals->count,
                    .credentials = options_text(options, OPTION_CREDENTIALS),
                    .initiator_name = options_text(options, OPTION_INITIATOR_NAME),
                    .iqn_prefix = prefix ? prefix : iqn_prefix_default,
                    .connect_timeout_ms = options->connect_timeout_s * 1000,
                    .io_timeout_ms = options->io_timeout_s * 1000,
                    .workers = life->workers,
                    .bandwidth_limit = options->bandwidth_limit,
                    .max_jobs = options->max_jobs ? options->max_jobs : MAX_JOBS,
                    .retention_days = options->retention_days ? options->retention_days
                                                              : RETENTION_DAYS,
                    .retention_rows = options->retention_rows ? options->retention_rows
                                                              : RETENTION_ROWS,
            },
            &fault);
    return life->service ? 0 : start_refuse(fault.why);
}

static int target_start(struct life *life, const struct options *options)
{
    const struct option_values *addresses = &options->values[OPTION_ISCSI];
    const char *prefix = options_text(options, OPTION_IQN_PREFIX);
    const char *fallback = iscsi_default;
    struct fault fault = { 0 };

    if (options->iscsi_none)
        return 0;
    life->exports = exports_start(life->service,
            addresses->count ? (const char *const *)addresses->items : &fallback,
            addresses->count ? addresses->count : 1,
            prefix ? prefix : iqn_prefix_default, &fault);
    return life->exports ? 0 : start_refuse(fault.why);
}

static int listeners_start(struct life *life, const struct options *options)
{
    const struct option_values *addresses = &options->values[OPTION_HTTP];
    const struct option_values *hosts = &options->values[OPTION_HTTP_HOST];
    const char *fallback = http_default;
    struct fault fault = { 0 };
    struct http_options http = {
        .addresses =
                addresses->count ? (const char *const *)addresses->items : &fallback,
        .address_count = addresses->count ? addresses->count : 1,
        .health = options_text(options, OPTION_HEALTH),
        .hosts = (const char *const *)hosts->items,
        .host_count = hosts->count,
    };

    life->http = http_start(life->service, &http, &fault);
    return life->http ? 0 : start_refuse(fault.why);
}

static void ready_tell(const struct life *life, const struct options *options)
{
    const char *health = http_health_address(life->http);
    const char *address;
    char portal[80];

    if (options->http_unprotected)
        log_plain(LOG_WARN, "http-unprotected",
                "the API may be reached from beyond this machine and asks for no "
                "login");
    (void)printf("replicad ready http=");
    for (size_t i = 0; (address = http_address(life->http, i)); i++)
        (void)printf("%s%s", i ? "," : "", address);
    (void)printf(" iscsi=%s", life->exports ? "" : "none");
    for (unsigned i = 0;
            life->exports && exports_address(life->exports, i, portal, sizeof(portal));
            i++)
        (void)printf("%s%s", i ? "," : "", portal);
    (void)printf(" health=%s\n", health ? health : "none");
    (void)fflush(stdout);
    log_plain(LOG_INFO, "ready", "serving");
    notify_manager("READY=1");
}

/* -- stop ----------------------------------------------------------------------------- */

static void signal_leave(int number)
{
    static const char words[] = "replicad: stopped at once by a second signal\n";

    (void)number;
    if (write(STDERR_FILENO, words, sizeof(words) - 1) < 0)
        _exit(1);
    _exit(1);
}

static void second_signal_obey(void)
{
    struct sigaction action = { .sa_handler = signal_leave };
    sigset_t ends;

    sigemptyset(&action.sa_mask);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    (void)pthread_sigmask(SIG_UNBLOCK, &ends, NULL);
}

/* What may change while copies run is read again; all else waits for the next start. */
static void configuration_reread(const struct life *life, const struct options *options)
{
    struct options again;
    char why[OPTION_WHY] = "";

    if (options_parse(&again, options->argc, options->argv, why) != 0) {
        log_plain(LOG_WARN, "reload", "nothing is changed: %s", why);
    } else {
        service_limit(life->service, again.bandwidth_limit);
        log_plain(LOG_INFO, "reload",
                "bandwidth-limit is %llu; other options are read at start only",
                (unsigned long long)again.bandwidth_limit);
    }
    options_finish(&again);
}

static void stop_await(const struct life *life, const struct options *options)
{
    int number = 0;

    while (number != SIGTERM && number != SIGINT) {
        if (sigwait(&life->signals, &number) != 0)
            number = 0;
        if (number == SIGUSR1)
            trace_print(STDERR_FILENO);
        else if (number == SIGHUP)
            configuration_reread(life, options);
    }
    log_plain(LOG_INFO, "stopping", "%s", number == SIGTERM ? "SIGTERM" : "SIGINT");
}

static void life_end(struct life *life)
{
    if (life->http)
        http_drain(life->http);
    if (life->service)
        service_drain(life->service);
    if (life->http)
        http_quiesce(life->http, FINISH_MS);
    http_stop(life->http);
    if (!exports_stop(life->exports) || !service_settle(life->service)) {
        log_plain(LOG_ERROR, "stopped", "not clean: some device never ended");
        _exit(1); /* loops still use it all: as if killed, which the next start expects */
    }
    if (life->service)
        service_destroy(life->service);
    free(life->pool_path);
    free(life->data);
}

int lifetime_run(const struct options *options)
{
    struct life life = { 0 };
    bool started;

    process_prepare(&life, options);
    started = service_start(&life, options) == 0 && target_start(&life, options) == 0 &&
            listeners_start(&life, options) == 0;
    if (started) {
        ready_tell(&life, options);
        stop_await(&life, options);
        notify_manager("STOPPING=1");
    }
    second_signal_obey();
    life_end(&life);
    if (started)
        log_plain(LOG_INFO, "stopped", "clean");
    return started ? 0 : 1;
}
