/* Bodies and Goals broken at random: whatever comes, an answer, no crash, no lie.
 * REPLICAD_SEED=N plays a run again; REPLICAD_ROUNDS=N makes it longer. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/json/body.h"
#include "api/json/writer.h"

enum { ROOM = 4096, ROUNDS = 20000 };

struct call {
    char name[17];
    uint64_t size;
    int64_t copy_type;
    char source[37];
    struct goal goal;
    struct body_texts texts;
    unsigned char guard;
    bool given[8];
};

static const struct body_member members[] = {
    { "ElementName", BODY_TEXT, false, offsetof(struct call, name),
            offsetof(struct call, given), 1, 16, CIM_MAP_COUNT, NULL },
    { "Size", BODY_NUMBER, false, offsetof(struct call, size),
            offsetof(struct call, given) + 1, 1, INT64_MAX, CIM_MAP_COUNT, NULL },
    { "CopyType", BODY_CIM, true, offsetof(struct call, copy_type),
            offsetof(struct call, given) + 2, 0, 0, CIM_COPY_TYPE, NULL },
    { "SourceElement", BODY_REFERENCE, true, offsetof(struct call, source),
            offsetof(struct call, given) + 3, 0, 0, CIM_MAP_COUNT, "elements" },
    { "Goal", BODY_GOAL, false, offsetof(struct call, goal),
            offsetof(struct call, given) + 4, 0, 0, CIM_MAP_COUNT, NULL },
    { "Texts", BODY_TEXTS, false, offsetof(struct call, texts),
            offsetof(struct call, given) + 5, 0, 0, CIM_MAP_COUNT, NULL },
};

static const char *const bodies[] = {
    "{\"ElementName\":\"copy\",\"Size\":1048576,\"CopyType\":4,\"SourceElement\":"
    "\"/elements/0193a5b0-7c3e-7000-8000-00000000000a\",\"Goal\":{\"DesiredRPO\":60,"
    "\"Verify\":true,\"ReplicationPriority\":\"High\"},\"Texts\":[\"a\",\"b\\u00e9\"]}",
    "{\"CopyType\":\"Async\",\"SourceElement\":\"0193a5b0-7c3e-7000-8000-"
    "00000000000a\","
    "\"Goal\":\"instance of CIM_StorageSetting { ReplicationPriority = 4; };\"}",
    "{\"Goal\":\"{\\\"BandwidthLimit\\\":99999999999999999999}\",\"Size\":1e400}",
};

static const char *const goals[] = {
    "instance of CIM_StorageSetting { ReplicationPriority = 4; Verify = TRUE; };",
    "// x\ninstance of CIM_SettingData { /* y */ DesiredRPO = 0x3c; ElementName = "
    "\"a\" "
    "\"\\\"b\"; BandwidthLimit = 101b; };",
    "{\"InitialSynchronization\":3,\"CopyRecoveryMode\":\"Manual\",\"DesiredRPO\":60}",
};

static const char *const pieces[] = { "\"", "{", "}", "[", "]", ":", ",", "\\",
    "\\u0000", "\\ud83d", "null", "true", "-", "9", "99999999999999999999", "1e999",
    "\xff", "\xc3", "/*", "*/", "//", ";", "=", "instance of ", "\"A\":1,", "\n", "0x",
    "b", ".", "e" };

static unsigned long long state;

static unsigned draw(unsigned below) /* splitmix64 */
{
    unsigned long long z = state += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return (unsigned)((z ^ z >> 31) % below);
}

static unsigned long long number_from(
        const char *variable, unsigned long long otherwise)
{
    const char *text = getenv(variable);

    return text ? strtoull(text, NULL, 0) : otherwise;
}

static unsigned long start(const char *what)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    state = number_from("REPLICAD_SEED", (unsigned long long)now.tv_nsec * 7919u);
    fprintf(stderr, "%s: REPLICAD_SEED=%llu\n", what, state);
    return (unsigned long)number_from("REPLICAD_ROUNDS", ROUNDS);
}

static void insert(char *text, size_t *length, size_t at, const char *what, size_t size)
{
    if (*length + size > ROOM)
        return;
    memmove(text + at + size, text + at, *length - at);
    memcpy(text + at, what, size);
    *length += size;
}

static void change(char *text, size_t *length)
{
    size_t at = draw((unsigned)*length + 1), run = draw(8) + 1u;
    const char *piece = pieces[draw(sizeof pieces / sizeof pieces[0])];
    char copy[16];

    switch (draw(5)) {
    case 0: /* another byte */
        if (at < *length)
            text[at] = (char)draw(256);
        break;
    case 1: /* some bytes less */
        run = run < *length - at ? run : *length - at;
        memmove(text + at, text + at + run, *length - at - run);
        *length -= run;
        break;
    case 2: /* something that means something */
        insert(text, length, at, piece, strlen(piece));
        break;
    case 3: /* some bytes twice */
        run = run < *length - at ? run : *length - at;
        memcpy(copy, text + at, run);
        insert(text, length, draw((unsigned)*length + 1), copy, run);
        break;
    default: /* the end cut off */
        if (draw(8) == 0)
            *length = at;
        break;
    }
}

/* @base changed a few times, in a buffer of its own so that the sanitizer sees its end. */
static char *broken(const char *base, size_t *length)
{
    char *text = malloc(ROOM), *exact;

    *length = strlen(base);
    memcpy(text, base, *length);
    for (unsigned i = 0, n = draw(6) + 1; i < n; i++)
        change(text, length);
    exact = malloc(*length + (*length == 0));
    memcpy(exact, text, *length);
    free(text);
    return exact;
}

/* Problems go out to people: they must be writable as JSON. */
static void problems_are_writable(const struct body_problems *problems)
{
    struct writer *writer = writer_create();
    size_t length;
    char *text;

    for (unsigned i = 0; i < problems->count; i++) {
        cr_assert(
                memchr(problems->list[i].pointer, 0, sizeof problems->list[i].pointer));
        cr_assert(memchr(problems->list[i].detail, 0, sizeof problems->list[i].detail));
    }
    writer_array(writer, "Errors");
    for (unsigned i = 0; i < problems->count; i++) {
        writer_text(writer, NULL, problems->list[i].pointer);
        writer_text(writer, NULL, problems->list[i].detail);
    }
    writer_end(writer);
    text = writer_finish(&writer, &length);
    cr_assert(text && !strstr(text, "\\uFFFD"), "%s", text);
    free(text);
}

static void one_body(const char *base, unsigned counts[3])
{
    struct body_problems problems;
    struct call call = { .guard = 0xa5 };
    size_t length;
    char *text = broken(base, &length), *canonical, *again;
    int result = body_decode(text, length, members, sizeof members / sizeof members[0],
            &call, &problems);

    cr_assert(result == 0 || result == -EBADMSG || result == -EINVAL, "%d", result);
    cr_assert((problems.count == 0) == (result == 0));
    cr_assert(call.guard == 0xa5);
    counts[result == 0 ? 0 : result == -EINVAL ? 1 : 2]++;
    problems_are_writable(&problems);
    canonical = body_canonical(text, length);
    cr_assert((canonical == NULL) == (result == -EBADMSG) || length == 0, "%.*s",
            (int)length, text);
    if (canonical) { /* one spelling stays as it is */
        again = body_canonical(canonical, strlen(canonical));
        cr_assert(again && strcmp(again, canonical) == 0, "%s", canonical);
        free(again);
    }
    free(canonical);
    free(text);
}

Test(mutation, bodies)
{
    unsigned long rounds = start("bodies");
    unsigned counts[3] = { 0 };

    for (unsigned long i = 0; i < rounds; i++)
        one_body(bodies[i % (sizeof bodies / sizeof bodies[0])], counts);
    fprintf(stderr, "bodies: %u good, %u wrong, %u malformed\n", counts[0], counts[1],
            counts[2]);
    cr_assert(rounds < 1000 || (counts[0] && counts[1] && counts[2]));
}

static void one_goal(const char *base, unsigned counts[2])
{
    struct body_problems problems = { 0 };
    struct goal goal, back;
    size_t length;
    char *text = broken(base, &length), *first, *second;
    int result = goal_parse(text, length, "/Goal", &goal, &problems);

    cr_assert(result == 0 || result == -EINVAL);
    cr_assert((problems.count == 0) == (result == 0));
    problems_are_writable(&problems);
    counts[result != 0]++;
    if (result == 0) { /* what was understood can be said again */
        first = goal_text(&goal);
        cr_assert(goal_parse(first, strlen(first), "", &back, &problems) == 0, "%s",
                first);
        second = goal_text(&back);
        cr_assert(strcmp(first, second) == 0);
        cr_assert(goal.desired_rpo >= 10 && goal.copy_recovery_mode >= 2);
        cr_assert(!goal.failed_copy_stops_host_io && goal.thin_reserve == 0);
        free(second);
        free(first);
    }
    free(text);
}

Test(mutation, goals)
{
    unsigned long rounds = start("goals");
    unsigned counts[2] = { 0 };

    for (unsigned long i = 0; i < rounds; i++)
        one_goal(goals[i % (sizeof goals / sizeof goals[0])], counts);
    fprintf(stderr, "goals: %u good, %u refused\n", counts[0], counts[1]);
    cr_assert(rounds < 1000 || (counts[0] && counts[1]));
}
