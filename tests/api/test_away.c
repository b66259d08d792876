/* An Async pair whose device is away, a real tgtd: what is said of it, when, and how long. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/api/pairs.h"
#include "tests/support/tgt.h"

#define TARGET "iqn.2026-11.example:away"

enum { SIZE = 1 << 20 };

static struct rig rig;
static struct tgt *tgt;
static char source[37], target[37], path[128];

static void lun_there(void)
{
    tgt_add_target(tgt, 1, TARGET);
    tgt_add_lun(tgt, 1, 1, &(struct tgt_lun){ .path = path });
}

static void begin(void)
{
    struct answer answer;
    char job[37];

    rig_make(&rig);
    rig_start(&rig);
    tgt = tgt_start();
    tgt_make_file(tgt, "lun", SIZE, path);
    lun_there();
    rig_element(&rig, "StorageVolume", SIZE, source);
    pair_noise(&rig, source, SIZE, 31);
    answer = rig_callf(&rig, API_ELEMENT_CREATE, (struct asked){ 0 },
            "{\"Type\":\"StorageVolume\",\"Address\":\"iscsi://127.0.0.1:%u/" TARGET
            "/1\"}",
            tgt->port);
    expect_answer(&answer, MADE, 0);
    snprintf(target, sizeof(target), "%s", answer_text(&answer, "Id"));
    answer_release(&answer);
    pair_attach(&rig, source, target, CIM_COPY_ASYNC, 0, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    pair_reach(&rig, target, CIM_SYNC_SYNCHRONIZED);
}

static void end(void)
{
    rig_remove(&rig);
    tgt_stop(tgt);
}

TestSuite(away, .init = begin, .fini = end);

/* -- what is seen ---------------------------------------------------------------------------- */

static struct store_replica pair(void)
{
    struct store_replica replica;

    expect(replica_row(&rig, target, &replica));
    return replica;
}

/** A scan begins now. */
static void scan(void)
{
    struct store_replica replica = pair();

    plant_due(&rig, &replica);
}

static struct answer modify(int operation)
{
    return rig_callf(&rig, API_REPLICA_MODIFY, (struct asked){ .id = target },
            "{\"Operation\":%d}", operation);
}

/** What events have told of the pair, one after the other: "6", "12" and LastError's words. */
struct told {
    char words[8][200];
    unsigned count;
};

static bool told_add(void *context, const struct api_event *event)
{
    struct told *told = context;
    json_t *data = json_loads(event->data, 0, NULL);
    json_t *changed = json_object_get(data, "Changed");
    json_t *state = json_object_get(changed, "SyncState");
    json_t *error = json_object_get(changed, "LastError");
    bool is_pair = strcmp(event->type, "Replica") == 0;

    if (is_pair && state && told->count < 8)
        snprintf(told->words[told->count++], sizeof(told->words[0]), "%lld",
                json_integer_value(state));
    if (is_pair && error && told->count < 8)
        snprintf(told->words[told->count++], sizeof(told->words[0]), "%s",
                json_is_null(error) ? "nothing" : json_string_value(error));
    json_decref(data);
    return true;
}

static void told_since(int64_t from, struct told *told)
{
    bool reset;

    *told = (struct told){ .count = 0 };
    (void)api_events(rig.service, from, 0, &reset, told_add, told);
}

/** Waits until the last that was told since @from begins with @word; the words told. */
static struct told told_wait(int64_t from, const char *word)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), PAIRS_PATIENCE_MS);
    struct told told;
    int64_t seen = -1;

    for (;;) {
        told_since(from, &told);
        if (told.count && strncmp(told.words[told.count - 1], word, strlen(word)) == 0)
            return told;
        cr_assert(service_wait(rig.service, &seen, deadline),
                "%s was not told, LastError: %s", word, pair().last_error);
    }
}

static void waits_for_target(const char *words)
{
    cr_assert(
            strncmp(words, "waiting for the target: ", 24) == 0, "it says: %s", words);
}

/** 0 or 1; -1: there is no such figure. */
static int figure(void)
{
    char line[120];
    size_t length;
    char *text = api_metrics(rig.service, &length), *at;
    int value = -1;

    snprintf(line, sizeof(line),
            "replicad_relationship_last_error{relationship=\"%s\"} ", target);
    expect(text != NULL);
    if ((at = strstr(text, line)))
        value = atoi(at + strlen(line));
    free(text);
    return value;
}

/** As GET shows it. */
static void shown(struct answer *answer)
{
    *answer = rig_call(&rig, API_REPLICA_GET, (struct asked){ .id = target }, NULL);
    expect_answer(answer, DONE, -1);
}

/* -- said at once, unsaid when it is back ---------------------------------------------------- */

Test(away, it_is_said_from_the_first_refused_opening_on)
{
    struct store_replica before = pair(), after;
    int64_t from = api_events_last(rig.service);
    struct told told;
    struct answer answer;

    expect_eq(figure(), 0);
    tgt_kill(tgt);
    scan();
    told = told_wait(from, "waiting");
    waits_for_target(told.words[0]); /* and is 6 still: no SyncState was told before */
    shown(&answer);
    expect(answer_text(&answer, "LastError") && figure() == 1);
    answer_release(&answer);

    from = api_events_last(rig.service);
    tgt_revive(tgt);
    lun_there();
    after = scan_finish(&rig, target, before.when_synced);
    expect_eq(after.sync_state, CIM_SYNC_SYNCHRONIZED);
    expect_str(after.last_error, "");
    expect_eq(figure(), 0);
    (void)told_wait(from, "nothing"); /* may be 12 between: the portal comes first */
}

/* An attempt after the other fails, each in the same words: that is told once. */
Test(away, it_is_said_once_until_the_scan_has_failed)
{
    int64_t from = api_events_last(rig.service);
    struct told told;

    tgt_kill(tgt);
    scan();
    pair_reach(&rig, target, CIM_SYNC_BROKEN);
    told_since(from, &told);
    expect_eq(told.count, 3);
    waits_for_target(told.words[0]);
    expect_str(told.words[1], "12");
    cr_assert(strncmp(told.words[2], "waiting", 7) != 0, "it says: %s", told.words[2]);
}

Test(away, who_scans_no_more_waits_no_more)
{
    int64_t from = api_events_last(rig.service);
    struct answer answer;

    tgt_kill(tgt);
    scan();
    (void)told_wait(from, "waiting");
    answer = modify(CIM_OP_QUIESCE);
    answer_release(&answer);
    pair_reach(&rig, target, CIM_SYNC_QUIESCED);
    expect_str(pair().last_error, "");
}

static void job_ask(const char *job, int64_t state)
{
    struct answer answer = rig_callf(&rig, API_JOB_REQUEST_STATE_CHANGE,
            (struct asked){ .id = job }, "{\"RequestedState\":%d}", (int)state);

    expect_answer(&answer, STARTED, 4096);
    answer_release(&answer);
}

/* Frozen it comes back with all that it had; one that is started again has its portal for a
   moment before its targets. */
static void freeze(void)
{
    rig_stop(&rig);
    rig.options.connect_timeout_ms = 2000; /* of an attempt; there are many */
    tgt_freeze(tgt);
    rig_start(&rig);
}

/* The pair of a job that waits says so as one whose scan waits does. */
Test(away, what_a_job_waits_for_is_said_of_its_pair_too)
{
    struct answer answer;
    struct told told;
    int64_t from;
    char job[37];

    freeze();
    from = api_events_last(rig.service);
    answer = modify(CIM_OP_RESYNC);
    job_started(&answer, job);
    told = told_wait(from, "waiting");
    expect_str(told.words[0], "5");
    waits_for_target(told.words[1]);
    waits_for_target(job_row(&rig, job).error);

    job_ask(job, CIM_REQUEST_SUSPEND);
    (void)job_reach(&rig, job, CIM_JOB_SUSPENDED);
    expect_str(pair().last_error, "");
    (void)told_wait(from, "nothing");
    job_ask(job, CIM_REQUEST_START);
    (void)told_wait(from, "waiting");

    tgt_thaw(tgt);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect_str(pair().last_error, "");
}

static void prepare(void)
{
    struct answer answer = modify(CIM_OP_FRACTURE);

    answer_release(&answer);
    pair_reach(&rig, target, CIM_SYNC_FRACTURED);
    answer = modify(CIM_OP_PREPARE);
    answer_release(&answer);
    pair_reach(&rig, target, CIM_SYNC_PREPARED);
}

/* Both ends are open, and nothing is under way that would fail. */
Test(away, a_hold_that_loses_its_session_says_so)
{
    int64_t from;

    prepare();
    from = api_events_last(rig.service);
    tgt_kill(tgt);
    (void)told_wait(from, "waiting for the target");
    tgt_revive(tgt);
    lun_there();
    (void)told_wait(from, "nothing");
    expect_eq(pair().sync_state, CIM_SYNC_PREPARED);
}

/* Prepared, and after a restart its ends are still to be opened. */
Test(away, a_hold_that_waits_says_so)
{
    struct answer answer;
    int64_t from;

    prepare();
    from = api_events_last(rig.service);
    freeze();
    (void)told_wait(from, "waiting");
    tgt_thaw(tgt);
    (void)told_wait(from, "nothing");
    expect_eq(pair().sync_state, CIM_SYNC_PREPARED);

    from = api_events_last(rig.service);
    freeze();
    (void)told_wait(from, "waiting");
    answer = modify(CIM_OP_UNPREPARE);
    answer_release(&answer);
    pair_reach(&rig, target, CIM_SYNC_FRACTURED);
    expect_str(pair().last_error, "");
    tgt_thaw(tgt);
}

/* -- neither dropped nor left ---------------------------------------------------------------- */

/* The process ended while a scan waited. */
Test(away, after_a_crash_nobody_waits)
{
    struct store_replica replica = pair();

    snprintf(replica.last_error, sizeof(replica.last_error),
            "waiting for the target: it was away");
    replica.scan_started = 1000;
    replica.sync_state = CIM_SYNC_QUIESCE_IN_PROGRESS;
    plant(&rig, STORE_REPLICA, &replica);
    rig_stop(&rig);
    rig_start(&rig);
    replica = pair();
    expect_eq(replica.sync_state, CIM_SYNC_QUIESCED);
    expect_str(replica.last_error, "");
}

static bool told_waiting(struct clerk_turn *turn, void *context)
{
    struct engine_event *event = context;

    replica_told(turn, &(struct uuid){ "" }, event); /* no such pair: nothing */
    event->id = uuid_of(target);
    replica_told(turn, &event->id, event);
    return true;
}

static void tell(struct engine_event event)
{
    expect_eq(clerk_call(rig.service->clerk, told_waiting, &event), 0);
}

/* Each word of the engine by itself. */
Test(away, a_stall_is_said_too_and_a_finding_is_kept)
{
    static const char found[] = "the target differs from the source: 512 bytes";
    const struct engine_event stalls = { .kind = ENGINE_PROGRESS,
        .stalled_ms = 10000,
        .stall = "the target does not answer: 3 requests are in flight" };
    const struct engine_event waits = { .kind = ENGINE_WAITING,
        .fault = { .error = -ECONNREFUSED, .why = "refused" } };
    struct store_replica replica;

    tell(stalls);
    expect_str(pair().last_error,
            "waiting: the target does not answer: 3 requests are in flight");
    tell(waits);
    expect_str(pair().last_error, "waiting for the source: refused");
    tell((struct engine_event){ .kind = ENGINE_STARTED });
    expect_str(pair().last_error, "");

    replica = pair();
    snprintf(replica.last_error, sizeof(replica.last_error), "%s", found);
    plant(&rig, STORE_REPLICA, &replica);
    tell(waits);
    tell((struct engine_event){ .kind = ENGINE_STARTED });
    expect_str(pair().last_error, found);
}
