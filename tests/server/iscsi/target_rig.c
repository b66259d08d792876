#include "tests/server/iscsi/target_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "replica/base/scope.h"
#include "tests/server/iscsi/backing.h"
#include "tests/server/iscsi/gate_device.h"
#include "tests/server/iscsi/target_view.h"
#include "tests/support/allocations.h"

#ifndef REPLICAD_SOURCE_DIR
#error "REPLICAD_SOURCE_DIR says where the scripts lie: see CMakeLists.txt"
#endif

enum { SCENARIO_S = 300, LINE = 256 };

static struct rig *rig_here; /* the last one that was started */

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "rig: %s: %s\n", what, strerror(errno));
    abort();
}

uint8_t *rig_bytes(struct rig *rig, unsigned export)
{
    return gate_bytes(rig->gates[export]);
}

/* -- the target ------------------------------------------------------------------------------ */

static void *loop_main(void *loop)
{
    allocations_watch(true);
    loop_run(loop);
    return NULL;
}

void rig_name(unsigned export, char name[SCSI_NAME_MAX])
{
    snprintf(name, SCSI_NAME_MAX,
            "iqn.2026-11.org.replicad:00000000-0000-7000-8000-%012u", export + 1);
}

static void export_id(struct iscsi_export *export, unsigned index)
{
    char text[UUID_TEXT];

    snprintf(text, sizeof text, "00000000-0000-7000-8000-%012u", index + 1);
    if (!uuid_parse(text, &export->id))
        fail("no id");
}

struct iscsi_export rig_export(struct rig *rig, unsigned index)
{
    static const char *const all[] = { "*" };
    static const char *const only[] = { "iqn.2026-11.org.replicad:Only" };
    struct iscsi_export export = {
        .initiators = index == 2 ? only : all,
        .initiator_count = 1,
        .loop = index % RIG_LOOPS,
        .backing = gate_backing(rig->gates[index]),
    };

    export_id(&export, index);
    if (index == 1) {
        export.has_chap = true;
        strcpy(export.chap.user, "alice");
        strcpy(export.chap.secret, "alice-has-a-secret");
        strcpy(export.chap.mutual_user, "target");
        strcpy(export.chap.mutual_secret, "target-has-its-own");
    }
    return export;
}

static uint16_t port_of(struct rig *rig, unsigned index)
{
    struct sockaddr_storage address;

    if (!iscsi_target_portal(rig->target, index, &address))
        fail("no such portal");
    return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

struct rig *rig_start(const struct rig_options *options)
{
    struct rig *rig = rig_here = calloc(1, sizeof *rig);
    struct sockaddr_storage portals[2] = { 0 };
    struct fault fault = { 0 };

    if (!rig)
        fail("no memory");
    for (unsigned i = 0; i < RIG_LOOPS; i++)
        if (!(rig->loops[i] = loop_uv_create()) ||
                pthread_create(&rig->threads[i], NULL, loop_main, rig->loops[i]) != 0)
            fail("no loop");
    *(struct sockaddr_in *)&portals[0] = (struct sockaddr_in){ .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    *(struct sockaddr_in6 *)&portals[1] =
            (struct sockaddr_in6){ .sin6_family = AF_INET6,
                .sin6_addr = in6addr_loopback };
    rig->target = iscsi_target_create(
            &(struct iscsi_target_options){ .loops = rig->loops,
                    .loop_count = RIG_LOOPS,
                    .portals = portals,
                    .portal_count = 2,
                    .prefix = "iqn.2026-11.org.replicad",
                    .buffer_bytes = options ? options->buffer_bytes : 0,
                    .ping_ms = options ? options->ping_ms : 0,
                    .stuck_ms = options ? options->stuck_ms : 0 },
            &fault);
    if (!rig->target)
        fail(fault.why);
    rig->port = port_of(rig, 0);
    rig->port6 = port_of(rig, 1);
    for (unsigned i = 0; i < RIG_EXPORTS; i++) {
        rig->gates[i] = gate_create(rig->loops[i % RIG_LOOPS], RIG_BYTES,
                options ? options->max_transfer : 0);
        struct iscsi_export export = rig_export(rig, i);
        if (iscsi_target_publish(rig->target, &export, RIG_DISKS_MS, &fault) < 0)
            fail(fault.why);
    }
    return rig;
}

void rig_more(struct rig *rig, unsigned count)
{
    static const char *const all[] = { "*" };
    struct iscsi_export export = { .initiators = all, .initiator_count = 1 };
    struct fault fault = { 0 };

    rig->more = calloc(count, sizeof *rig->more);
    if (!rig->more)
        fail("no memory");
    for (unsigned i = 0; i < count; i++) {
        export_id(&export, RIG_EXPORTS + i);
        export.loop = i % RIG_LOOPS;
        backing_init(&rig->more[i], "memory:8192", true, rig->loops[export.loop]);
        export.backing = &rig->more[i].scsi;
        if (iscsi_target_publish(rig->target, &export, RIG_DISKS_MS, &fault) < 0)
            fail(fault.why);
    }
}

static void stand_run(struct loop_task *task)
{
    struct rig_stand *stand = container_of(task, struct rig_stand, task);

    (void)sem_post(&stand->stands);
    while (sem_wait(&stand->ends) < 0)
        ;
}

void rig_stand_still(struct rig *rig, unsigned index)
{
    struct rig_stand *stand = &rig->stand;

    if (sem_init(&stand->stands, 0, 0) < 0 || sem_init(&stand->ends, 0, 0) < 0)
        fail("no semaphore");
    stand->task = (struct loop_task){ .run = stand_run };
    loop_post(rig->loops[index], &stand->task);
    while (sem_wait(&stand->stands) < 0)
        ;
}

void rig_go_on(struct rig *rig)
{
    (void)sem_post(&rig->stand.ends);
}

static sem_t idle;

static void idle_run(struct loop_task *task)
{
    (void)task;
    (void)sem_post(&idle);
}

static void loop_idle(struct loop *loop)
{
    static struct loop_task task = { .run = idle_run };

    loop_post(loop, &task);
    while (sem_wait(&idle) < 0)
        ;
}

void rig_stop(struct rig *rig)
{
    rig_here = NULL;
    for (unsigned i = 0; i < RIG_EXPORTS; i++) /* nothing held may outlast the test */
        gate_open(rig->gates[i]);
    iscsi_target_destroy(rig->target, 200);
    for (unsigned i = 0; i < RIG_LOOPS; i++) {
        loop_stop(rig->loops[i]);
        pthread_join(rig->threads[i], NULL);
        loop_destroy(rig->loops[i]);
    }
    for (unsigned i = 0; i < RIG_EXPORTS; i++)
        gate_destroy(rig->gates[i]);
    free(rig->more);
    free(rig);
}

/* -- children -------------------------------------------------------------------------------- */

struct child {
    pid_t pid;
    int in, out; /* what we write to it, read from it */
};

static void child_start(struct child *child, const char *const argv[], bool merge)
{
    int to[2], from[2];
    pid_t parent = getpid();

    if (pipe2(to, O_CLOEXEC) < 0 || pipe2(from, O_CLOEXEC) < 0)
        fail("pipe");
    child->pid = fork();
    if (child->pid < 0)
        fail("fork");
    if (child->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(126);
        (void)dup2(to[0], STDIN_FILENO);
        (void)dup2(from[1], STDOUT_FILENO);
        if (merge)
            (void)dup2(from[1], STDERR_FILENO);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    (void)close(to[0]);
    (void)close(from[1]);
    child->in = to[1];
    child->out = from[0];
}

static int child_end(struct child *child, bool kill_it)
{
    int status;

    (void)close(child->in);
    (void)close(child->out);
    if (kill_it)
        (void)kill(child->pid, SIGKILL);
    while (waitpid(child->pid, &status, 0) < 0)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Some bytes of it; 0 at its end, -1 when the deadline has passed. */
static ssize_t child_read(
        struct child *child, char *to, size_t room, struct instant deadline)
{
    struct pollfd poll_fd = { .fd = child->out, .events = POLLIN };
    uint64_t left = instant_ms_until(clock_monotonic(), deadline);

    if (left == 0 || poll(&poll_fd, 1, (int)left) <= 0)
        return -1;
    return read(child->out, to, room);
}

/* -- one that takes too long ----------------------------------------------------------------- */

static void file_tell(pid_t pid, const char *name)
{
    char path[64], line[4096];
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    if (!(file = fopen(path, "re")))
        return;
    if (fgets(line, sizeof line, file))
        fprintf(stderr, "rig: its %s: %s\n", name, line);
    (void)fclose(file);
}

/* What the kernel has of connections to and from @port: queues, timers, retransmissions. */
static void sockets_tell(uint16_t port)
{
    char command[96], line[1024];
    FILE *lines;

    snprintf(command, sizeof command,
            "ss -tnipmo '( sport = :%u or dport = :%u )' 2>&1", port, port);
    if (!(lines = popen(command, "re")))
        return;
    while (fgets(line, sizeof line, lines))
        fputs(line, stderr);
    (void)pclose(lines);
}

void rig_tell(struct rig *rig)
{
    for (unsigned i = 0; i < 2; i++) { /* what moves differs */
        if (i > 0)
            (void)usleep(1000 * 1000);
        target_view(rig->target);
        sockets_tell(rig->port);
        sockets_tell(rig->port6);
    }
}

static void child_tell(const struct child *child, const char *name, const char *said)
{
    fprintf(stderr, "rig: %s takes too long; it said: %s\n", name, said ? said : "");
    file_tell(child->pid, "stat");
    file_tell(child->pid, "wchan");
    file_tell(child->pid, "syscall");
    if (rig_here)
        rig_tell(rig_here);
}

/* -- commands -------------------------------------------------------------------------------- */

/* @load_s: when it is asked to end, 0: never. */
static int command_run(const char *const argv[], unsigned load_s, unsigned seconds,
        char *output, size_t room)
{
    struct instant began = clock_monotonic();
    struct instant end = instant_add_ms(began, seconds * 1000ull);
    struct instant ask = load_s ? instant_add_ms(began, load_s * 1000ull) : end;
    struct child child;
    char bytes[4096];
    size_t have = 0;
    ssize_t got;

    child_start(&child, argv, true);
    while ((got = child_read(&child, bytes, sizeof bytes, ask)) != 0) {
        size_t keep = output && have < room - 1 ? room - 1 - have : 0;
        if (got < 0 && ask.ns == end.ns)
            break;
        if (got < 0) {
            (void)kill(child.pid, SIGINT);
            ask = end;
            continue;
        }
        keep = keep < (size_t)got ? keep : (size_t)got;
        if (!output)
            (void)fwrite(bytes, 1, (size_t)got, stderr);
        else
            memcpy(output + have, bytes, keep);
        have += keep;
    }
    if (output)
        output[have] = '\0';
    if (got == 0)
        return child_end(&child, false);
    child_tell(&child, argv[0], output);
    (void)child_end(&child, true);
    return RIG_LATE;
}

int rig_command(const char *const argv[], unsigned seconds, char *output, size_t room)
{
    return command_run(argv, 0, seconds, output, room);
}

int rig_load(const char *const argv[], unsigned seconds, char *output, size_t room)
{
    return command_run(argv, RIG_LOAD_S, seconds, output, room);
}

/* -- scenarios: a child that may ask for things ---------------------------------------------- */

static int sessions_of(struct rig *rig, unsigned export)
{
    struct iscsi_export what = rig_export(rig, export);
    return iscsi_target_sessions(rig->target, &what.id, NULL, 0);
}

static int crowd_of(struct rig *rig)
{
    struct iscsi_figures figures;

    iscsi_target_figures(rig->target, &figures);
    return (int)(figures.sessions + figures.connections);
}

/* Sessions of all exports, and what holds or held them. */
static int wait_crowd(struct rig *rig, int wanted)
{
    for (unsigned i = 0; i < 60000 && crowd_of(rig) != wanted; i++)
        (void)usleep(1000);
    return crowd_of(rig);
}

static int wait_sessions(struct rig *rig, unsigned export, int wanted)
{
    for (unsigned i = 0; i < 60000 && sessions_of(rig, export) != wanted; i++)
        (void)usleep(1000);
    return sessions_of(rig, export);
}

/* @end: "" and it is kept, "no" and it is forgotten, else how many ms it may take. */
static int change(struct rig *rig, const struct iscsi_export *what, const char *end)
{
    int result = iscsi_target_change(rig->target, what, NULL);

    if (result)
        return result;
    return iscsi_target_settle(rig->target, &what->id, strcmp(end, "no") != 0,
            end[0] ? (unsigned)atoi(end) : RIG_DISKS_MS);
}

static int change_name(
        struct rig *rig, struct iscsi_export *what, const char *name, const char *end)
{
    what->initiators = &name;
    return change(rig, what, end);
}

static int change_secret(struct rig *rig, struct iscsi_export *what, const char *secret)
{
    snprintf(what->chap.secret, sizeof what->chap.secret, "%s", secret);
    return change(rig, what, "");
}

/* While there are none, nobody can be let in. What is open stays so. */
static int descriptors_limit(bool none)
{
    static struct rlimit before;
    struct rlimit now;

    if (getrlimit(RLIMIT_NOFILE, &now) < 0)
        return -errno;
    if (none) {
        before = now;
        now.rlim_cur = 3;
    } else {
        now.rlim_cur = before.rlim_cur;
    }
    return setrlimit(RLIMIT_NOFILE, &now) < 0 ? -errno : 0;
}

/* "WORD EXPORT [ARGUMENT]" -> what to answer. */
static int serve_line(struct rig *rig, const char *line)
{
    char word[32] = "", argument[LINE] = "", more[LINE] = "";
    unsigned export = 0;
    struct iscsi_export what;

    (void)sscanf(line, "%31s %u %255s %255s", word, &export, argument, more);
    if (export >= RIG_EXPORTS)
        return -EINVAL;
    what = rig_export(rig, export);
    if (strcmp(word, "hold") == 0) {
        gate_shut(rig->gates[export]);
        return 0;
    }
    if (strcmp(word, "held") == 0)
        return gate_wait_held(rig->gates[export], (unsigned)atoi(argument))
                ? 0
                : -ETIMEDOUT;
    if (strcmp(word, "let") == 0) {
        gate_open(rig->gates[export]);
        return 0;
    }
    if (strcmp(word, "stand") == 0) {
        rig_stand_still(rig, what.loop);
        return 0;
    }
    if (strcmp(word, "idle") == 0) { /* what it did before this came to it is done */
        loop_idle(rig->loops[what.loop]);
        return 0;
    }
    if (strcmp(word, "go") == 0) {
        rig_go_on(rig);
        return 0;
    }
    if (strcmp(word, "descriptors") == 0)
        return descriptors_limit(strcmp(argument, "no") == 0);
    if (strcmp(word, "sessions") == 0)
        return argument[0] ? wait_sessions(rig, export, atoi(argument))
                           : sessions_of(rig, export);
    if (strcmp(word, "more") == 0) {
        rig_more(rig, (unsigned)atoi(argument));
        return 0;
    }
    if (strcmp(word, "crowd") == 0)
        return wait_crowd(rig, atoi(argument));
    if (strcmp(word, "allocations") == 0)
        return (int)allocations_take();
    if (strcmp(word, "counts") == 0)
        return allocations_are_counted;
    if (strcmp(word, "withdraw") == 0)
        return iscsi_target_withdraw(rig->target, &what.id, (unsigned)atoi(argument));
    if (strcmp(word, "publish") == 0)
        return iscsi_target_publish(rig->target, &what, RIG_DISKS_MS, NULL);
    if (strcmp(word, "change") == 0)
        return change_name(rig, &what, argument, more);
    if (strcmp(word, "secret") == 0)
        return change_secret(rig, &what, argument);
    return -ENOSYS;
}

static bool serve_lines(struct rig *rig, struct child *child, char *line, size_t *have)
{
    char *end, answer[32];

    while ((end = memchr(line, '\n', *have))) {
        *end = '\0';
        int length = snprintf(answer, sizeof answer, "%d\n", serve_line(rig, line));
        if (write(child->in, answer, (size_t)length) != length)
            return false;
        *have -= (size_t)(end + 1 - line);
        memmove(line, end + 1, *have);
    }
    return *have < LINE;
}

int rig_scenario(struct rig *rig, const char *script, const char *name)
{
    char path[512], port[8], port6[8], line[LINE];
    const char *const argv[] = { "python3", path, name, port, port6, NULL };
    struct instant deadline = instant_add_ms(clock_monotonic(), SCENARIO_S * 1000ull);
    struct child child;
    size_t have = 0;
    ssize_t got;

    snprintf(
            path, sizeof path, REPLICAD_SOURCE_DIR "/tests/server/iscsi/%s.py", script);
    snprintf(port, sizeof port, "%u", rig->port);
    snprintf(port6, sizeof port6, "%u", rig->port6);
    child_start(&child, argv, false);
    while ((got = child_read(&child, line + have, LINE - have, deadline)) > 0) {
        have += (size_t)got;
        if (!serve_lines(rig, &child, line, &have))
            break;
    }
    return child_end(&child, got != 0);
}

void rig_play(const char *script, const char *name, const struct rig_options *options)
{
    struct rig *rig = rig_start(options);
    int status = rig_scenario(rig, script, name);

    rig_stop(rig);
    if (status != 0) {
        fprintf(stderr, "rig: %s ended with %d\n", name, status);
        abort();
    }
}
