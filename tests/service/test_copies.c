/* Copies between all kinds of ends, with a real tgtd as the far side, compared by tools that
 * are not ours. Targets are full of garbage and larger than the source: what lies behind
 * the source's end, and outside an extent, must stay as it was. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/service/world.h"
#include "tests/support/expect.h"
#include "tests/support/seed.h"

enum { MIB = 1 << 20, BEHIND = 3 * MIB };

enum kind { END_FILE, END_LUN, END_LUN_4K, END_LUN_THIN, END_NEW };

/* One row a copy. window: the source (and an attached target) is an extent that begins there. */
struct row {
    enum kind source, target;
    uint64_t size;
    uint64_t source_window, target_window;
    int copy_type;
};

static const struct row rows[] = {
    { END_LUN, END_LUN, 9 * MIB + 7 * 512, 0, 0, 5 },
    { END_LUN_4K, END_LUN_4K, 6 * MIB + 3 * 4096, 0, 0, 4 },
    { END_LUN, END_LUN_4K, 4 * MIB + 5 * 4096, 0, 0, 5 },
    { END_LUN_4K, END_LUN, 4 * MIB + 4096, 0, 0, 5 },
    { END_LUN_THIN, END_LUN_THIN, 12 * MIB + 512, 0, 0, 2 },
    { END_LUN, END_FILE, 7 * MIB + 512, 0, 0, 5 },
    { END_LUN_4K, END_NEW, 5 * MIB + 4096, 0, 0, 5 },
    { END_FILE, END_LUN, 5 * MIB + 12345, 0, 0, 5 },
    { END_FILE, END_LUN_4K, 3 * MIB + 1, 0, 0, 4 },
    { END_FILE, END_LUN_THIN, 8 * MIB + 777, 0, 0, 5 },
    { END_FILE, END_FILE, 6 * MIB + 333, 0, 0, 5 },
    { END_FILE, END_FILE, 1, 0, 0, 4 },
    { END_FILE, END_NEW, 10 * MIB + 99, 0, 0, 4 },
    { END_FILE, END_NEW, 5 * MIB, 0, 0, 2 },
    { END_LUN, END_NEW, 4 * MIB + 512, 1 * MIB + 512, 0, 5 },
    { END_FILE, END_LUN, 4 * MIB + 512, 512, 1 * MIB + 1536, 5 },
    { END_LUN, END_FILE, 2 * MIB + 512, 4096, 3 * MIB, 4 },
    { END_LUN_4K, END_LUN_4K, 2 * MIB + 8192, 12288, 1 * MIB, 5 },
};
enum { ROWS = sizeof rows / sizeof *rows };

struct end {
    char id[WORLD_ID], path[WORLD_PATH];
};

static int next_lun = 1;

static void end_open(struct world *world, enum kind kind, uint64_t size,
        const char *name, bool garbage, uint64_t seed, struct end *end)
{
    unsigned block = kind == END_LUN_4K ? 4096 : 512;
    int lun = next_lun;

    if (kind == END_FILE) {
        snprintf(end->path, sizeof end->path, "%.64s/%.64s", world->pool, name);
    } else {
        size = (size + block - 1) / block * block;
        snprintf(end->path, sizeof end->path, "%s/%s", world->tgt->directory, name);
    }
    if (garbage)
        garbage_file(end->path, size);
    else
        fill_file(end->path, size, seed, true);
    if (kind == END_FILE) {
        register_file(world, name, end->id);
        return;
    }
    next_lun++;
    make_lun(world, lun, block, kind == END_LUN_THIN, name, end->path);
    register_lun(world, lun, false, end->id);
}

/* The bytes of a window of @path, as a file of their own: dd is not ours. */
static void cut(
        const char *path, uint64_t offset, uint64_t size, char out[WORLD_PATH + 8])
{
    char in[WORLD_PATH + 8], of[WORLD_PATH + 16], skip[40], count[40];
    const char *dd[] = { "dd", in, of, skip, count, "iflag=skip_bytes,count_bytes",
        "status=none", NULL };

    snprintf(out, WORLD_PATH + 8, "%s.cut", path);
    snprintf(in, sizeof in, "if=%s", path);
    snprintf(of, sizeof of, "of=%s", out);
    snprintf(skip, sizeof skip, "skip=%llu", (unsigned long long)offset);
    snprintf(count, sizeof count, "count=%llu", (unsigned long long)size);
    expect_eq(run_program(dd), 0);
}

static void judge(const struct row *row, const char *source, const char *target,
        uint64_t target_block)
{
    uint64_t padded = (row->size + target_block - 1) / target_block * target_block;
    char a[WORLD_PATH + 8], b[WORLD_PATH + 8], as[2 * WORLD_PATH], bs[2 * WORLD_PATH];
    const char *compare[] = { "qemu-img", "compare", "-q", "--image-opts", as, bs,
        NULL };
    struct stat status;

    cut(source, row->source_window, row->size, a);
    cut(target, row->target_window, row->size, b);
    expect(same_bytes(a, b, row->size));
    if (row->size % 512 == 0) { /* it knows whole sectors only */
        snprintf(as, sizeof as, "driver=raw,file.filename=%s", a);
        snprintf(bs, sizeof bs, "driver=raw,file.filename=%s", b);
        expect_eq(run_program(compare), 0);
    }
    remove(a);
    remove(b);
    if (row->target == END_NEW)
        return;
    expect(still_garbage(target, 0, row->target_window));
    expect_eq(stat(target, &status), 0);
    expect(still_garbage(target, row->target_window + padded,
            (uint64_t)status.st_size - row->target_window - padded));
}

static void attach(struct world *world, const struct row *row, const char *source,
        const char *target, char job[WORLD_ID * 2])
{
    char path[WORLD_ID * 2];
    json_t *answer;

    snprintf(path, sizeof path, "/replicas/%s/attach", target);
    answer = world_call(world, 202, "POST", path,
            "{\"SourceElement\":\"/elements/"
            "%s\",\"CopyType\":%d,\"Goal\":{\"Verify\":true}}",
            source, row->copy_type);
    snprintf(job, WORLD_ID * 2, "%s", text_of(answer, "Job"));
    json_decref(answer);
}

static void create(struct world *world, const struct row *row, const char *source,
        char target[WORLD_ID], char job[WORLD_ID * 2])
{
    json_t *answer = world_call(world, 202, "POST", "/replicas",
            "{\"SourceElement\":\"%s\",\"CopyType\":%d}", source, row->copy_type);

    snprintf(job, WORLD_ID * 2, "%s", text_of(answer, "Job"));
    snprintf(target, WORLD_ID, "%s",
            text_of(answer, "TargetElement") + strlen("/elements/"));
    json_decref(answer);
}

static void run_row(struct world *world, unsigned n, uint64_t seed)
{
    const struct row *row = &rows[n];
    uint64_t block = row->target == END_LUN_4K ? 4096
            : row->target == END_FILE          ? 1
                                               : 512;
    uint64_t behind_source = row->source_window ? BEHIND : 0;
    char name[32], id[WORLD_ID], job[WORLD_ID * 2];
    struct end source, target;

    if (row->target == END_NEW)
        block = 1;
    snprintf(name, sizeof name, "source-%u", n);
    end_open(world, row->source, row->source_window + row->size + behind_source, name,
            false, seed + n, &source);
    snprintf(id, sizeof id, "%s", source.id);
    if (row->source_window)
        register_extent(world, source.id, row->source_window, row->size, id);
    if (row->target == END_NEW) {
        create(world, row, id, target.id, job);
        element_file(world, target.id, target.path);
    } else {
        char target_id[WORLD_ID];
        snprintf(name, sizeof name, "target-%u", n);
        end_open(world, row->target, row->target_window + row->size + BEHIND, name,
                true, 0, &target);
        snprintf(target_id, sizeof target_id, "%s", target.id);
        if (row->target_window)
            register_extent(world, target.id, row->target_window,
                    (row->size + block - 1) / block * block, target_id);
        attach(world, row, id, target_id, job);
    }
    job_completed(world, job, 120);
    judge(row, source.path, target.path, block);
}

Test(copies, between_all_kinds_of_ends)
{
    uint64_t seed = seed_take("copies");
    struct world world;

    world_open(&world, NULL);
    world_tgt(&world);
    for (unsigned n = 0; n < ROWS; n++) {
        fprintf(stderr, "copies: row %u\n", n);
        run_row(&world, n, seed);
    }
    world_close(&world);
}

/* Through the far side's own front door: what a host would read. */
Test(copies, qemu_reads_the_same_from_both_luns)
{
    uint64_t seed = seed_take("copies"), size = 16 * MIB;
    char from[WORLD_PATH], to[WORLD_PATH], job[WORLD_ID * 2];
    const char *compare[] = { "qemu-img", "compare", "-q", "-f", "raw", "-F", "raw",
        from, to, NULL };
    const struct row row = { END_LUN, END_LUN, size, 0, 0, 5 };
    struct end source, target;
    struct world world;

    world_open(&world, NULL);
    world_tgt(&world);
    next_lun = 1;
    end_open(&world, END_LUN, size, "source", false, seed, &source);
    end_open(&world, END_LUN, size, "target", true, 0, &target);
    attach(&world, &row, source.id, target.id, job);
    job_completed(&world, job, 120);
    snprintf(from, sizeof from, "iscsi://127.0.0.1:%u/" WORLD_TARGET "/1",
            world.tgt->port);
    snprintf(to, sizeof to, "iscsi://127.0.0.1:%u/" WORLD_TARGET "/2", world.tgt->port);
    expect_eq(run_program(compare), 0);
    world_close(&world);
}

static void flip(const char *path, uint64_t at)
{
    unsigned char byte;
    int fd = open(path, O_RDWR);

    expect(fd >= 0 && pread(fd, &byte, 1, (off_t)at) == 1);
    byte ^= (unsigned char)(1u << at % 8);
    expect(pwrite(fd, &byte, 1, (off_t)at) == 1 && fsync(fd) == 0);
    close(fd);
}

/* The pair is verified; its Differences, owned by the caller. */
static json_t *verify(struct world *world, const char *target, bool equal)
{
    char path[WORLD_ID * 2];
    json_t *answer, *job, *found;

    snprintf(path, sizeof path, "/replicas/%s/verify", target);
    answer = world_call(world, 202, "POST", path, NULL);
    job = job_end(world, text_of(answer, "Job"), 120);
    expect_eq(number_of(job, "JobState"), equal ? 7 : 10);
    expect(strcmp(text_of(job, "MethodName"), "VerifyReplica") == 0);
    found = json_incref(json_object_get(job, "Differences"));
    json_decref(answer);
    json_decref(job);
    return found;
}

/* Behind everybody's back: in a pool's file, and in what a LUN is kept in. */
Test(copies, a_verify_finds_a_flipped_bit_wherever_it_is)
{
    static const enum kind kinds[][2] = { { END_FILE, END_LUN },
        { END_LUN_4K, END_FILE }, { END_FILE, END_FILE } };
    uint64_t seed = seed_take("copies"), draw = seed, size = 6 * MIB;
    struct world world;

    world_open(&world, NULL);
    world_tgt(&world);
    next_lun = 1;
    for (unsigned n = 0; n < sizeof kinds / sizeof *kinds; n++) {
        const struct row row = { kinds[n][0], kinds[n][1], size, 0, 0, 4 };
        uint64_t at = seed_below(&draw, size), block = n == 1 ? 4096 : 512;
        char name[32], job[WORLD_ID * 2];
        struct end ends[2];
        for (unsigned i = 0; i < 2; i++) {
            snprintf(name, sizeof name, "verify-%u-%u", n, i);
            end_open(&world, kinds[n][i], size, name, i == 1, seed, &ends[i]);
        }
        attach(&world, &row, ends[0].id, ends[1].id, job);
        job_completed(&world, job, 120);
        json_decref(verify(&world, ends[1].id, true));
        flip(ends[seed_below(&draw, 2)].path, at);
        json_t *found = verify(&world, ends[1].id, false);
        expect_eq(json_array_size(found), 1);
        expect_eq(number_of(json_array_get(found, 0), "Offset"), at / block * block);
        expect_eq(number_of(json_array_get(found, 0), "Length"), block);
        json_decref(found);
    }
    world_close(&world);
}
