/* kill -9 under writes to an export, again and again: libiscsi writes stamped blocks from four
 * sessions, the process dies at a drawn moment and starts again, the sessions log in again and
 * send again what was not answered, as initiators do, and every block reads as its last
 * answered write (a killed process loses no page cache, so that holds for all of them, not
 * only for those with FUA or a flush behind them). A reservation made under APTPL is there each
 * time. REPLICAD_EXPORT_KILLS: how many lives (50).
 *
 * Not by the library's own waiting calls and reconnects: of a session that is lost they leave
 * a pending PDU that points into the stack of the caller. */
#include <criterion/criterion.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "replica/base/clock.h"
#include "tests/service/world.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum {
    SESSIONS = 4,
    BLOCK = 4096,
    SECTORS = BLOCK / 512, /* of the export's own block size */
    REGION = 1024, /* blocks of one session */
    LONGEST = 8, /* blocks of one write */
    PATIENCE_S = 120
};

struct session {
    unsigned number;
    pthread_t thread;
    const char *element;
    char name[16];
    struct iscsi_context *iscsi;
    struct scsi_task *task; /* the one command that is out */
    bool answered;
    struct {
        uint32_t lba, bytes;
        bool fua;
    } io; /* what the command is about */
    uint64_t state; /* of its dice */
    uint64_t serial; /* of the last write sent */
    uint64_t model[REGION]; /* serial of the last write answered; 0: zeros */
    uint8_t bytes[LONGEST * BLOCK];
};

struct rig {
    struct world world;
    char portal[64], volume[WORLD_ID], reserved[WORLD_ID];
    uint64_t seed;
    struct session sessions[SESSIONS];
    struct session keeper;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* CLOCK_MONOTONIC */
    uint64_t written; /* writes answered, over all lives; under the lock */
    unsigned look, looked; /* the regions are read whole: asked, done */
    bool stop;
};

static struct rig rig;

/* -- stamps ---------------------------------------------------------------------------- */

/** The only bytes that write @serial of session @number puts into @block. */
static void stamp(uint8_t *bytes, unsigned number, unsigned block, uint64_t serial)
{
    uint64_t state = rig.seed ^ serial << 20 ^ (uint64_t)block << 4 ^ number;

    memset(bytes, 0, BLOCK);
    for (unsigned i = 0; serial && i < BLOCK; i += 8) {
        uint64_t word = seed_next(&state);
        memcpy(bytes + i, &word, 8);
    }
}

/* -- libiscsi, as a stranger uses it ------------------------------------------------------- */

static bool login(struct session *session)
{
    char initiator[64], target[128];

    snprintf(initiator, sizeof(initiator), "iqn.2026-11.example:%s", session->name);
    snprintf(target, sizeof(target), "iqn.2026-11.org.replicad:%s", session->element);
    session->iscsi = iscsi_create_context(initiator);
    expect(session->iscsi != NULL);
    expect_eq(iscsi_set_targetname(session->iscsi, target), 0);
    iscsi_set_session_type(session->iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_noautoreconnect(session->iscsi, 1);
    if (iscsi_full_connect_sync(session->iscsi, rig.portal, 0) == 0)
        return true;
    (void)iscsi_destroy_context(session->iscsi);
    session->iscsi = NULL;
    return false;
}

static void leave(struct session *session)
{
    if (session->iscsi)
        (void)iscsi_destroy_context(session->iscsi);
    session->iscsi = NULL;
    if (session->task) /* nothing points to it any more */
        scsi_free_scsi_task(session->task);
    session->task = NULL;
}

/** Until the target is there again. */
static void come(struct session *session)
{
    struct instant end = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);

    leave(session);
    while (!login(session)) {
        cr_assert(!instant_reached(clock_monotonic(), end),
                "%s: no login for two minutes", session->name);
        (void)poll(NULL, 0, 10); /* between two tries */
    }
}

static void answered(struct iscsi_context *iscsi, int status, void *data, void *context)
{
    struct session *session = context;

    (void)iscsi, (void)status, (void)data;
    session->answered = true;
}

/** False: the session is lost. */
static bool answer_await(struct session *session)
{
    struct instant end = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);

    while (!session->answered) {
        struct pollfd wait = { .fd = iscsi_get_fd(session->iscsi),
            .events = (short)iscsi_which_events(session->iscsi) };

        cr_assert(!instant_reached(clock_monotonic(), end),
                "%s: no answer for two minutes", session->name);
        if (poll(&wait, 1, 1000) > 0 &&
                iscsi_service(session->iscsi, wait.revents) != 0)
            return false;
    }
    return session->task->status != SCSI_STATUS_CANCELLED &&
            session->task->status != SCSI_STATUS_ERROR;
}

typedef struct scsi_task *send_f(struct session *session);

/** Send until it is answered, over as many sessions as it takes; a unit attention is news, and
    the command is sent again. Good, and the caller's to free. */
static struct scsi_task *run(struct session *session, send_f *send)
{
    for (;;) {
        struct scsi_task *task;

        session->answered = false;
        session->task = send(session);
        expect(session->task != NULL);
        if (!answer_await(session)) {
            come(session);
            continue;
        }
        task = session->task;
        session->task = NULL;
        if (task->status == SCSI_STATUS_GOOD)
            return task;
        cr_assert(task->status == SCSI_STATUS_CHECK_CONDITION &&
                        task->sense.key == SCSI_SENSE_UNIT_ATTENTION,
                "%s: %s", session->name, iscsi_get_error(session->iscsi));
        scsi_free_scsi_task(task);
    }
}

static struct scsi_task *send_write(struct session *session)
{
    return iscsi_write16_task(session->iscsi, 0, session->io.lba, session->bytes,
            session->io.bytes, 512, 0, 0, session->io.fua, 0, 0, answered, session);
}

static struct scsi_task *send_read(struct session *session)
{
    return iscsi_read16_task(session->iscsi, 0, session->io.lba, session->io.bytes, 512,
            0, 0, 0, 0, 0, answered, session);
}

static struct scsi_task *send_flush(struct session *session)
{
    return iscsi_synchronizecache16_task(
            session->iscsi, 0, 0, 0, 0, 0, answered, session);
}

static void block_write(struct session *session, unsigned block, unsigned count)
{
    session->io.lba = (session->number * REGION + block) * SECTORS;
    session->io.bytes = count * BLOCK;
    session->io.fua = seed_below(&session->state, 4) == 0;
    session->serial++;
    for (unsigned i = 0; i < count; i++)
        stamp(session->bytes + i * BLOCK, session->number, block + i, session->serial);
    scsi_free_scsi_task(run(session, send_write));
    for (unsigned i = 0; i < count; i++)
        session->model[block + i] = session->serial;
}

static void blocks_judge(struct session *session, unsigned block, const uint8_t *bytes)
{
    uint8_t wanted[BLOCK];

    for (unsigned i = 0; i < LONGEST; i++) {
        stamp(wanted, session->number, block + i, session->model[block + i]);
        cr_assert(memcmp(wanted, bytes + i * BLOCK, BLOCK) == 0,
                "session %u, block %u: not its write %llu, the last that was answered",
                session->number, block + i,
                (unsigned long long)session->model[block + i]);
    }
}

static void region_look(struct session *session)
{
    for (unsigned block = 0; block < REGION; block += LONGEST) {
        struct scsi_task *task;

        session->io.lba = (session->number * REGION + block) * SECTORS;
        session->io.bytes = LONGEST * BLOCK;
        task = run(session, send_read);
        expect_eq(task->datain.size, LONGEST * BLOCK);
        blocks_judge(session, block, task->datain.data);
        scsi_free_scsi_task(task);
    }
}

/* -- the sessions -------------------------------------------------------------------------- */

static void *session_main(void *argument)
{
    struct session *session = argument;
    unsigned seen = 0;

    for (;;) {
        unsigned count = 1 + (unsigned)seed_below(&session->state, LONGEST);
        bool look, stop;

        block_write(session, (unsigned)seed_below(&session->state, REGION - count + 1),
                count);
        if (seed_below(&session->state, 16) == 0)
            scsi_free_scsi_task(run(session, send_flush));
        pthread_mutex_lock(&rig.lock);
        rig.written++;
        look = rig.look != seen;
        seen = rig.look;
        stop = rig.stop;
        pthread_cond_broadcast(&rig.changed);
        pthread_mutex_unlock(&rig.lock);
        if (look || stop)
            region_look(session);
        if (look) {
            pthread_mutex_lock(&rig.lock);
            rig.looked++;
            pthread_cond_broadcast(&rig.changed);
            pthread_mutex_unlock(&rig.lock);
        }
        if (stop)
            return NULL;
    }
}

static struct timespec deadline(void)
{
    struct timespec due;

    clock_gettime(CLOCK_MONOTONIC, &due);
    due.tv_sec += PATIENCE_S;
    return due;
}

/** Waits until @more further writes have been answered. */
static void writes_wait(uint64_t more)
{
    struct timespec due = deadline();
    uint64_t wanted;
    int result = 0;

    pthread_mutex_lock(&rig.lock);
    wanted = rig.written + more;
    while (rig.written < wanted && result == 0)
        result = pthread_cond_timedwait(&rig.changed, &rig.lock, &due);
    pthread_mutex_unlock(&rig.lock);
    cr_assert(result == 0, "no write was answered for two minutes");
}

static void regions_look(void)
{
    struct timespec due = deadline();
    int result = 0;

    pthread_mutex_lock(&rig.lock);
    rig.looked = 0;
    rig.look++;
    while (rig.looked < SESSIONS && result == 0)
        result = pthread_cond_timedwait(&rig.changed, &rig.lock, &due);
    pthread_mutex_unlock(&rig.lock);
    cr_assert(result == 0, "a session did not come back within two minutes");
}

/* -- a reservation under APTPL ------------------------------------------------------------- */

enum { KEY = 0x52455041, EXCLUSIVE = SCSI_PERSISTENT_RESERVE_TYPE_WRITE_EXCLUSIVE };

static struct scsi_task *send_register(struct session *session)
{
    struct scsi_persistent_reserve_out_basic out = {
        .service_action_reservation_key = KEY, .aptpl = 1
    };

    return iscsi_persistent_reserve_out_task(session->iscsi, 0,
            SCSI_PERSISTENT_RESERVE_REGISTER, 0, 0, &out, answered, session);
}

static struct scsi_task *send_reserve(struct session *session)
{
    struct scsi_persistent_reserve_out_basic out = { .reservation_key = KEY };

    return iscsi_persistent_reserve_out_task(session->iscsi, 0,
            SCSI_PERSISTENT_RESERVE_RESERVE, 0, EXCLUSIVE, &out, answered, session);
}

static struct scsi_task *send_who(struct session *session)
{
    return iscsi_persistent_reserve_in_task(session->iscsi, 0,
            SCSI_PERSISTENT_RESERVE_READ_RESERVATION, 255, answered, session);
}

static void reservation_look(void)
{
    struct scsi_task *task = run(&rig.keeper, send_who);
    struct scsi_persistent_reserve_in_read_reservation *held =
            scsi_datain_unmarshall(task);

    expect(held && held->reserved);
    expect_eq(held->reservation_key, KEY);
    expect_eq(held->pr_type, EXCLUSIVE);
    scsi_free_scsi_task(task);
}

/* -- lives --------------------------------------------------------------------------------- */

static void volume_export(unsigned long long size, char id[WORLD_ID])
{
    char path[WORLD_ID + 32];
    json_t *made = world_call(&rig.world, 201, "POST", "/elements",
            "{\"Type\":\"StorageVolume\",\"Pool\":\"default\",\"Size\":%llu}", size);

    snprintf(id, WORLD_ID, "%s", text_of(made, "Id"));
    json_decref(made);
    snprintf(path, sizeof(path), "/elements/%s/export", id);
    json_decref(world_call(&rig.world, 201, "PUT", path, "{\"Initiators\":[\"*\"]}"));
}

static void rig_open(void)
{
    static char portal[64];
    static const char *const extra[] = { "--iscsi", portal, NULL };
    pthread_condattr_t attributes;

    (void)signal(SIGPIPE, SIG_IGN); /* the library writes to a daemon that is dead */
    rig.seed = seed_take("export_kill");
    pthread_mutex_init(&rig.lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&rig.changed, &attributes);
    snprintf(portal, sizeof(portal), "127.0.0.1:%u", port_free());
    memcpy(rig.portal, portal, sizeof(portal));
    world_open(&rig.world, extra);
    volume_export((unsigned long long)SESSIONS * REGION * BLOCK, rig.volume);
    volume_export(1 << 20, rig.reserved);
    rig.keeper = (struct session){ .element = rig.reserved, .name = "keeper" };
    come(&rig.keeper);
    scsi_free_scsi_task(run(&rig.keeper, send_register));
    scsi_free_scsi_task(run(&rig.keeper, send_reserve));
    for (unsigned i = 0; i < SESSIONS; i++) {
        struct session *session = &rig.sessions[i];

        *session = (struct session){
            .element = rig.volume, .number = i, .state = rig.seed + i
        };
        snprintf(session->name, sizeof(session->name), "writer-%u", i);
        come(session);
        expect_eq(pthread_create(&session->thread, NULL, session_main, session), 0);
    }
}

static void rig_close(void)
{
    pthread_mutex_lock(&rig.lock);
    rig.stop = true;
    pthread_mutex_unlock(&rig.lock);
    for (unsigned i = 0; i < SESSIONS; i++) {
        pthread_join(rig.sessions[i].thread, NULL);
        leave(&rig.sessions[i]);
    }
    leave(&rig.keeper);
    world_close(&rig.world);
}

Test(export_kill, what_was_answered_is_there)
{
    const char *given = getenv("REPLICAD_EXPORT_KILLS");
    unsigned lives = given ? (unsigned)strtoul(given, NULL, 10) : 50;
    uint64_t dice;

    rig_open();
    dice = rig.seed;
    for (unsigned life = 0; life < lives; life++) {
        writes_wait(5 + seed_below(&dice, 400));
        daemon_kill(&rig.world.daemon);
        cr_assert(daemon_restart(&rig.world.daemon), "%s", rig.world.daemon.why);
        regions_look();
        reservation_look();
    }
    rig_close();
    expect(lives > 0 && rig.written > lives);
    fprintf(stderr, "%u lives, %llu writes answered, all there\n", lives,
            (unsigned long long)rig.written);
}
