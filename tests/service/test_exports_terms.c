/* Exports that change under their hosts: who may use them and how they show it; a kill right
 * after an answer; guesses at secrets. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "replica/base/clock.h"
#include "tests/service/exports.h"
#include "tests/support/expect.h"

#define HOST "iqn.2026-11.example:"
#define ALICES "alice:alice-has-a-secret\n"
#define NEW "alicia:alice-has-a-new-one\n"

/** With CHAP. NULL: it was refused; @why (may be NULL) says how. */
static struct iscsi_context *host_prove(struct house *house, const char *id,
        const char *name, const char *user, const char *secret, char why[OUTPUT])
{
    struct iscsi_context *host = host_make(id, name);

    expect_eq(iscsi_set_initiator_username_pwd(host, user, secret), 0);
    if (host_login(host, house->v4)) {
        host_settle(host);
        return host;
    }
    if (why)
        snprintf(why, OUTPUT, "%s", iscsi_get_error(host));
    host_free(host);
    return NULL;
}

static bool proves(struct house *house, const char *id, const char *name,
        const char *user, const char *secret)
{
    struct iscsi_context *host = host_prove(house, id, name, user, secret, NULL);

    if (host)
        host_leave(host);
    return host != NULL;
}

/** Where the only session of the export comes from. */
static void only_session(const json_t *export, const char *initiator, char address[64])
{
    const json_t *sessions = json_object_get(export, "Sessions");
    const json_t *session = json_array_get(sessions, 0);

    cr_assert(json_array_size(sessions) == 1, "%s", json_dumps(export, 0));
    expect_str(text_of(session, "Initiator"), initiator);
    snprintf(address, 64, "%s", text_of(session, "Address"));
}

/** Lines of the log that have all three. */
static unsigned log_lines(
        struct house *house, const char *a, const char *b, const char *c)
{
    FILE *log = fopen(house->world.daemon.log, "r");
    unsigned count = 0;
    char line[1024];

    expect(log != NULL);
    while (fgets(line, sizeof(line), log))
        count += strstr(line, a) && strstr(line, b) && strstr(line, c);
    fclose(log);
    return count;
}

/** The answer goes before its line. */
static void log_wait(struct house *house, const char *a, const char *b, const char *c)
{
    struct instant deadline = instant_add_ms(clock_monotonic(), PATIENCE_S * 1000);

    while (log_lines(house, a, b, c) == 0) {
        cr_assert(!instant_reached(clock_monotonic(), deadline),
                "no line with %s, %s and %s", a, b, c);
        usleep(5000); /* between two looks; the line is what ends it */
    }
}

/* -- a change ------------------------------------------------------------------------------ */

Test(exports_terms, who_still_may_goes_on_and_the_others_end)
{
    char id[WORLD_ID], path[WORLD_PATH], before[64], after[64];
    struct iscsi_context *alice, *bob, *again;
    struct house house;
    json_t *answer;

    house_open(&house, NULL);
    secret_write(&house, "old", ALICES);
    secret_write(&house, "new", NEW);
    volume_make(&house, 4 * MIB, id);
    export_put(&house, 201, id,
            "{\"Initiators\":[\"" HOST "alice\"],\"Credentials\":\"old\"}");
    alice = host_prove(&house, id, "alice", "alice", "alice-has-a-secret", NULL);
    expect(alice != NULL);
    answer = export_get(&house, id);
    only_session(answer, HOST "alice", before);
    json_decref(answer);
    export_put(&house, 200, id, "{\"Initiators\":[\"*\"],\"Credentials\":\"old\"}");
    bob = host_prove(&house, id, "bob", "alice", "alice-has-a-secret", NULL);
    expect(bob != NULL);
    expect_good(host_write(alice, 0, 8, 1));
    expect_good(host_write(bob, 8, 8, 2));
    expect_good(host_reserve(alice, 0, 0, 0, 77)); /* her key outlives it as well */

    snprintf(path, sizeof(path), "/elements/%s/export", id);
    answer = world_call(&house.world, 200, "PUT", path,
            "{\"Initiators\":[\"" HOST "alice\"],\"Credentials\":\"new\"}");
    only_session(answer, HOST "alice", after);
    json_decref(answer);
    expect_str(after, before);
    expect(host_write(bob, 8, 8, 3).status != SCSI_STATUS_GOOD);
    host_free(bob);
    expect_good(host_write(alice, 16, 8, 4));
    expect_eq(host_read(alice, 8, 1).data[0], 2);
    expect_good(host_reserve(alice, 0, 0, 77, 0));
    expect(!proves(&house, id, "bob", "alicia", "alice-has-a-new-one"));
    expect(!proves(&house, id, "alice", "alice", "alice-has-a-secret"));
    again = host_prove(&house, id, "alice", "alicia", "alice-has-a-new-one", NULL);
    expect(again != NULL);
    expect_good(host_read(again, 0, 8));
    host_leave(again);
    sessions_wait(&house, id, 1);
    answer = export_get(&house, id);
    only_session(answer, HOST "alice", after);
    json_decref(answer);
    expect_str(after, before);
    host_leave(alice);
    house_close(&house);
}

/* Who was asked for nothing has shown nothing. */
Test(exports_terms, who_came_unproven_goes_when_a_proof_is_asked_for)
{
    char id[WORLD_ID], path[WORLD_PATH];
    struct iscsi_context *alice;
    struct house house;
    json_t *answer;

    house_open(&house, NULL);
    secret_write(&house, "new", NEW);
    volume_make(&house, 4 * MIB, id);
    export_put(&house, 201, id, "{\"Initiators\":[\"" HOST "alice\"]}");
    alice = host_make(id, "alice");
    expect(host_login(alice, house.v4));
    host_settle(alice);
    expect_good(host_write(alice, 0, 8, 1));
    snprintf(path, sizeof(path), "/elements/%s/export", id);
    answer = world_call(&house.world, 200, "PUT", path,
            "{\"Initiators\":[\"" HOST "alice\"],\"Credentials\":\"new\"}");
    expect_eq(json_array_size(json_object_get(answer, "Sessions")), 0);
    json_decref(answer);
    expect(host_write(alice, 0, 8, 2).status != SCSI_STATUS_GOOD);
    host_free(alice);
    alice = host_prove(&house, id, "alice", "alicia", "alice-has-a-new-one", NULL);
    expect(alice != NULL);
    expect_eq(host_read(alice, 0, 1).data[0], 1);
    host_leave(alice);
    house_close(&house);
}

Test(exports_terms, writers_do_not_notice_a_change)
{
    struct writer_host writers[2];
    struct house house;
    char id[WORLD_ID];

    house_open(&house, NULL);
    volume_make(&house, 16 * MIB, id);
    export_put(&house, 201, id, "{\"Initiators\":[\"*\"]}");
    writer_start(&writers[0], house.v4, id, "alice", 16 * MIB);
    writer_start(&writers[1], house.v6, id, "bob", 16 * MIB);
    for (unsigned i = 0; i < 8; i++) {
        writer_wait(&writers[0], 10);
        writer_wait(&writers[1], 10);
        export_put(&house, 200, id,
                i % 2 ? "{\"Initiators\":[\"*\"]}"
                      : "{\"Initiators\":[\"" HOST "alice\",\"" HOST "bob\"]}");
    }
    export_put(&house, 200, id, "{\"Initiators\":[\"" HOST "alice\"]}");
    sessions_wait(&house, id, 1);
    writer_wait(&writers[0], 10);
    writer_stop(&writers[1]);
    expect(writers[1].lost);
    export_put(&house, 200, id, "{\"Initiators\":[\"*\"],\"ReadOnly\":true}");
    writer_stop(&writers[0]);
    expect(writers[0].lost); /* that one opens the element anew */
    house_close(&house);
}

Test(exports_terms, a_change_that_fails_has_changed_nothing)
{
    static const char *const bodies[] = {
        "{\"Initiators\":[\"" HOST "bob\"],\"Credentials\":\"absent\"}",
        "{\"Initiators\":[\"" HOST "bob\"],\"Credentials\":\"short\"}",
        "{\"Initiators\":[\"*\"],\"ReadOnly\":true,\"Credentials\":\"absent\"}",
    };
    char id[WORLD_ID], path[WORLD_PATH];
    struct iscsi_context *alice;
    struct house house;

    house_open(&house, NULL);
    secret_write(&house, "short", "alice:too-short\n");
    volume_make(&house, 4 * MIB, id);
    export_put(&house, 201, id, "{\"Initiators\":[\"" HOST "alice\"]}");
    alice = host_come(house.v4, id, "alice");
    snprintf(path, sizeof(path), "/elements/%s/export", id);
    for (unsigned i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        json_decref(world_call(&house.world, 422, "PUT", path, "%s", bodies[i]));
        expect_good(host_write(alice, 0, 8, (uint8_t)i));
    }
    expect(!may_come(house.v4, id, "bob"));
    host_leave(alice);
    expect(may_come(house.v4, id, "alice"));
    house_close(&house);
}

Test(exports_terms, what_cannot_be_served_is_tried_again)
{
    char id[WORLD_ID], path[WORLD_PATH], file[2 * WORLD_PATH], away[3 * WORLD_PATH];
    struct house house;
    json_t *export;

    house_open(&house, NULL);
    world_file(&house.world, "disk", 4 * MIB, 1);
    register_file(&house.world, "disk", id);
    export_put(&house, 201, id, "{\"Initiators\":[\"" HOST "alice\"]}");
    expect(may_come(house.v4, id, "alice"));
    snprintf(file, sizeof(file), "%s/disk", house.world.pool);
    snprintf(away, sizeof(away), "%s.away", file);
    snprintf(path, sizeof(path), "/elements/%s/export", id);
    expect_eq(rename(file, away), 0);
    json_decref(world_call(&house.world, 502, "PUT", path,
            "{\"Initiators\":[\"*\"],\"ReadOnly\":true}"));
    export = export_get(&house, id);
    expect(json_is_false(json_object_get(export, "Serving")));
    json_decref(export);
    log_wait(&house, "export-waits", "cannot be served yet", id);
    expect_eq(rename(away, file), 0);
    serving_wait(&house, id);
    expect(may_come(house.v4, id, "alice"));
    expect(!may_come(house.v4, id, "bob"));
    house_close(&house);
}

/* -- a kill right after the answer --------------------------------------------------------- */

Test(exports_terms, what_was_answered_survives_a_kill)
{
    char id[WORLD_ID], path[WORLD_PATH];
    struct house house;
    json_t *export;

    house_open(&house, NULL);
    volume_make(&house, 4 * MIB, id);
    export_put(&house, 201, id, "{\"Initiators\":[\"" HOST "alice\"]}");
    house_kill(&house);
    serving_wait(&house, id);
    expect(may_come(house.v4, id, "alice"));
    expect(!may_come(house.v4, id, "bob"));

    export_put(&house, 200, id, "{\"Initiators\":[\"" HOST "bob\"]}");
    house_kill(&house);
    serving_wait(&house, id);
    expect(may_come(house.v4, id, "bob"));
    expect(!may_come(house.v4, id, "alice"));

    export_put(&house, 200, id, "{\"Initiators\":[\"*\"],\"ReadOnly\":true}");
    house_kill(&house);
    serving_wait(&house, id);
    export = export_get(&house, id);
    expect(json_is_true(json_object_get(export, "ReadOnly")));
    json_decref(export);
    expect(may_come(house.v4, id, "alice"));

    snprintf(path, sizeof(path), "/elements/%s/export", id);
    json_decref(world_call(&house.world, 204, "DELETE", path, NULL));
    house_kill(&house);
    json_decref(world_call(&house.world, 404, "GET", path, NULL));
    expect(!may_come(house.v4, id, "alice"));
    house_close(&house);
}

/* -- guesses ------------------------------------------------------------------------------- */

Test(exports_terms, guesses_are_forgotten_with_the_secret_that_they_were_at)
{
    static char wrong[OUTPUT], held[OUTPUT];
    char id[WORLD_ID];
    struct house house;

    house_open(&house, NULL);
    secret_write(&house, "one", ALICES);
    volume_make(&house, 4 * MIB, id);
    export_put(&house, 201, id, "{\"Initiators\":[\"*\"],\"Credentials\":\"one\"}");
    for (unsigned i = 0; i < 5; i++)
        expect(!host_prove(
                &house, id, "hasty", "alicia", "alice-has-a-new-one", wrong));
    expect_eq(log_lines(&house, "throttled", "", ""), 0);
    expect(!host_prove(&house, id, "hasty", "alice", "alice-has-a-secret", held));
    expect_str(held, wrong); /* the wire tells nothing of it, the log does */
    log_wait(&house, "throttled", HOST "hasty", "from 127.0.0.1:");
    export_put(&house, 200, id,
            "{\"Initiators\":[\"" HOST "hasty\"],\"Credentials\":\"one\"}");
    expect(!proves(&house, id, "hasty", "alice", "alice-has-a-secret"));
    secret_write(&house, "one", NEW);
    export_put(&house, 200, id, "{\"Initiators\":[\"*\"],\"Credentials\":\"one\"}");
    expect(proves(&house, id, "hasty", "alicia", "alice-has-a-new-one"));
    house_close(&house);
}
