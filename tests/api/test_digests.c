/* Deltas by digest, as the rows tell of them: which way it went, what was written, and when
 * nothing that is known of the replica may be trusted. */
#include "tests/api/pairs.h"

static struct rig rig;
static char source[37], target[37];

enum { CHUNK = 64 << 10, SIZE = 4 * PAIRS_MIB };

static void begin(void)
{
    rig_make(&rig);
    rig_start(&rig);
    rig_element(&rig, "StorageVolume", SIZE, source);
    rig_element(&rig, "StorageVolume", SIZE, target);
    pair_noise(&rig, source, SIZE, 11);
    pair_noise(&rig, target, SIZE, 12);
}

static void end(void)
{
    rig_remove(&rig);
}

TestSuite(digests, .init = begin, .fini = end);

static struct answer modify(const char *operation)
{
    return rig_callf(&rig, API_REPLICA_MODIFY, (struct asked){ .id = target },
            "{\"Operation\":\"%s\"}", operation);
}

/* What the job of @answer says when it is over; the answer is released. */
static void finish(struct answer answer, const char *mode, uint64_t written)
{
    struct store_job row;
    char job[37];

    job_started(&answer, job);
    row = job_finish(&rig, job);
    cr_assert(row.state == CIM_JOB_COMPLETED, "%s", row.error);
    answer = rig_call(&rig, API_JOB_GET, (struct asked){ .id = job }, NULL);
    expect_str(answer_text(&answer, "Mode"), mode);
    expect_eq((uint64_t)answer_number(&answer, "BytesWritten"), written);
    expect_eq((uint64_t)answer_number(&answer, "BytesSkipped"), SIZE - written);
    expect_eq((uint64_t)answer_number(&answer, "BytesDone"), SIZE);
    answer_release(&answer);
    expect(pair_equal(&rig, source, target, SIZE));
}

static void attached(int type, const char *goal)
{
    finish(rig_callf(&rig, API_REPLICA_ATTACH, (struct asked){ .id = target },
                   "{\"SourceElement\":\"/elements/%s\",\"CopyType\":%d%s}", source,
                   type, goal),
            "Full", SIZE);
}

static void done(struct answer answer)
{
    expect_answer(&answer, DONE, 0);
    answer_release(&answer);
}

/* One bit of an element's file changes. */
static void poke(const char *id, long at)
{
    char path[PAIRS_PATH];
    FILE *file;
    int byte;

    element_path(&rig, id, path);
    file = fopen(path, "r+");
    expect(file && fseek(file, at, SEEK_SET) == 0);
    byte = fgetc(file);
    expect(byte != EOF && fseek(file, at, SEEK_SET) == 0);
    expect(fputc(byte ^ 1, file) != EOF && fclose(file) == 0);
}

static bool sidecar_there(void)
{
    char path[700];

    snprintf(path, sizeof(path), "%s/digests/%s.digests", rig.data, target);
    return access(path, F_OK) == 0;
}

Test(digests, a_resync_goes_by_digest)
{
    attached(2, "");
    expect(sidecar_there());
    poke(source, 3 * CHUNK);
    finish(modify("Resync"), "DeltaByDigest", CHUNK);
    finish(modify("Resync"), "DeltaByDigest", 0);
    rig_stop(&rig);
    rig_start(&rig);
    poke(source, SIZE - 1);
    finish(modify("Resync"), "DeltaByDigest", CHUNK);
}

Test(digests, a_frozen_replica_that_was_written_is_compared)
{
    attached(4, "");
    poke(source, 0);
    finish(modify("Resync"), "DeltaByDigest", CHUNK);
    poke(target, 5 * CHUNK);
    finish(modify("Resync"), "DeltaByComparison", CHUNK);
}

Test(digests, a_fractured_replica_is_compared)
{
    attached(2, "");
    done(modify("Fracture"));
    expect(!sidecar_there());
    poke(source, 7);
    finish(modify("Resync"), "DeltaByComparison", CHUNK);
    finish(modify("Resync"), "DeltaByDigest", 0);
}

Test(digests, a_restore_leaves_none)
{
    attached(4, "");
    poke(source, 9 * CHUNK);
    finish(modify("Restore"), "DeltaByComparison", CHUNK);
    expect(!sidecar_there());
    finish(modify("Resync"), "DeltaByComparison", 0);
    finish(modify("Resync"), "DeltaByDigest", 0);
}

Test(digests, they_go_with_the_pair)
{
    attached(4, "");
    expect(sidecar_there());
    done(modify("Detach"));
    expect(!sidecar_there());
    attached(5, ""); /* ends with its copy: none is kept */
    expect(!sidecar_there());
}

/* A scan of an Async pair goes by digest: the target is not read, what is written is equal. */
Test(digests, a_scan_reads_the_source_alone)
{
    struct store_replica replica;
    struct engine_figures before, after;
    int64_t first;

    attached(2, ",\"Goal\":{\"DesiredRPO\":3600}");
    expect(replica_row(&rig, target, &replica));
    first = replica.when_synced;
    poke(source, 2 * CHUNK + 9);
    engine_figures(rig.service->engine, &before);
    plant_due(&rig, &replica);
    (void)scan_finish(&rig, target, first);
    engine_figures(rig.service->engine, &after);
    expect(pair_equal(&rig, source, target, SIZE));
    expect_eq(after.read_bytes - before.read_bytes, SIZE);
    expect_eq(after.written_bytes - before.written_bytes, CHUNK);
}
