/* What the service says and does while hosts are on its exports: sessions, figures, an end
 * and a new start. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/service/exports.h"
#include "tests/support/directory.h"
#include "tests/support/expect.h"

#define ALL "{\"Initiators\":[\"*\"]}"

static char output[OUTPUT];

/* -- what the API says and does ------------------------------------------------------------------ */

/** Bytes that the only session has moved. */
static void session_moved(
        struct house *house, const char *id, long long *read, long long *written)
{
    json_t *export = export_get(house, id);
    json_t *session = json_array_get(json_object_get(export, "Sessions"), 0);

    expect_eq(json_array_size(json_object_get(export, "Sessions")), 1);
    expect_str(text_of(session, "Initiator"), "iqn.2026-11.example:alice");
    cr_assert(strncmp(text_of(session, "Address"), "127.0.0.1:", 10) == 0, "%s",
            text_of(session, "Address"));
    expect(strlen(text_of(session, "Since")) >= 20);
    expect(number_of(session, "QueueDepth") >= 0);
    *read = number_of(session, "BytesRead");
    *written = number_of(session, "BytesWritten");
    json_decref(export);
}

Test(exports_life, the_element_shows_its_sessions)
{
    char id[WORLD_ID], path[WORLD_PATH];
    long long read, written, read_more, written_more;
    struct iscsi_context *alice;
    struct house house;
    json_t *element, *export, *portals;

    house_open(&house, NULL);
    volume_make(&house, 4 * MIB, id);
    export_put(&house, 201, id, ALL);
    export = export_get(&house, id);
    portals = json_object_get(export, "Portals");
    expect_str(json_string_value(json_array_get(portals, 0)), house.v4);
    expect_str(json_string_value(json_array_get(portals, 1)), house.v6);
    json_decref(export);
    alice = host_come(house.v4, id, "alice");
    sessions_wait(&house, id, 1);
    session_moved(&house, id, &read, &written);
    expect_good(host_write(alice, 0, 200, 3));
    expect_good(host_read(alice, 0, 16));
    session_moved(&house, id, &read_more, &written_more);
    expect_eq(written_more - written, 200 * SECTOR);
    expect_eq(read_more - read, 16 * SECTOR);
    snprintf(path, sizeof(path), "/elements/%s", id);
    element = world_call(&house.world, 200, "GET", path, NULL);
    export = json_object_get(element, "Export");
    expect_eq(json_array_size(json_object_get(export, "Sessions")), 1);
    json_decref(element);
    call_in_use(&house, "DELETE", path, NULL);
    expect_good(host_ready(alice));
    snprintf(path, sizeof(path), "/elements/%s/export", id);
    json_decref(world_call(&house.world, 204, "DELETE", path, NULL));
    expect(host_ready(alice).status != SCSI_STATUS_GOOD);
    host_free(alice);
    expect(!may_come(house.v4, id, "alice"));
    json_decref(world_call(&house.world, 404, "GET", path, NULL));
    snprintf(path, sizeof(path), "/elements/%s", id);
    json_decref(world_call(&house.world, 200, "DELETE", path, NULL));
    house_close(&house);
}

/** A figure of /metrics. */
static double figure_of(const char *text, const char *name)
{
    char line[80];
    const char *at;

    snprintf(line, sizeof(line), "\nreplicad_target_%s ", name);
    at = strstr(text, line);
    cr_assert(at, "no %s", name);
    return strtod(at + strlen(line), NULL);
}

static char *metrics_read(struct house *house)
{
    struct http_answer answer = { 0 };
    char *text;
    FILE *tool;

    expect_eq(
            http_send(house->world.daemon.http, "GET", "/metrics", NULL, NULL, &answer),
            200);
    text = strndup(answer.body, answer.length);
    tool = popen("promtool check metrics", "w");
    expect(tool != NULL && fputs(text, tool) >= 0);
    expect_eq(pclose(tool), 0);
    http_answer_release(&answer);
    return text;
}

Test(exports_life, figures_of_the_target)
{
    struct iscsi_context *alice;
    char id[WORLD_ID], *before, *after;
    struct house house;

    house_open(&house, NULL);
    volume_make(&house, 4 * MIB, id);
    export_put(&house, 201, id, "{\"Initiators\":[\"iqn.2026-11.example:alice\"]}");
    before = metrics_read(&house);
    expect_eq(figure_of(before, "exports"), 1);
    expect_eq(figure_of(before, "sessions"), 0);
    expect(!may_come(house.v4, id, "bob"));
    alice = host_come(house.v4, id, "alice");
    expect_good(host_write(alice, 0, 200, 3));
    expect_good(host_read(alice, 0, 16));
    after = metrics_read(&house);
    expect_eq(figure_of(after, "sessions"), 1);
    expect(figure_of(after, "connections") >= 1);
    expect(figure_of(after, "commands_total") >=
            figure_of(before, "commands_total") + 3);
    expect_eq(figure_of(after, "written_bytes_total") -
                    figure_of(before, "written_bytes_total"),
            200 * SECTOR);
    expect(figure_of(after, "read_bytes_total") -
                    figure_of(before, "read_bytes_total") >=
            16 * SECTOR);
    expect_eq(figure_of(after, "logins_refused_total") -
                    figure_of(before, "logins_refused_total"),
            1);
    host_leave(alice);
    free(before);
    free(after);
    house_close(&house);
}

/* -- start and stop ------------------------------------------------------------------------------ */

Test(exports_life, a_portal_that_is_taken_is_said)
{
    char directory[] = "/tmp/replicad-taken-XXXXXX";
    struct house house;

    house_open(&house, NULL);
    expect(mkdtemp(directory) != NULL);
    const char *arguments[] = { "--data-dir", directory, "--http", "127.0.0.1:0",
        "--iscsi", house.v4, NULL };
    expect_eq(daemon_run(arguments, output, sizeof(output)), 1);
    cr_assert(strstr(output, house.v4) && strstr(output, "in use"), "%s", output);
    (void)tree_remove(directory);
    house_close(&house);
}

Test(exports_life, a_stop_under_load_is_clean_and_the_exports_are_there_again)
{
    struct writer_host writers[4];
    struct house house;
    char id[WORLD_ID];

    house_open(&house, NULL);
    volume_make(&house, 16 * MIB, id);
    export_put(&house, 201, id, ALL);
    for (unsigned i = 0; i < 4; i++)
        writer_start(&writers[i], i % 2 ? house.v6 : house.v4, id,
                (const char *[]){ "a", "b", "c", "d" }[i], 16 * MIB);
    for (unsigned i = 0; i < 4; i++)
        writer_wait(&writers[i], 20);
    expect_eq(daemon_stop(&house.world.daemon), 0);
    for (unsigned i = 0; i < 4; i++) {
        writer_stop(&writers[i]);
        expect(writers[i].lost);
    }
    cr_assert(daemon_restart(&house.world.daemon), "%s", house.world.daemon.why);
    serving_wait(&house, id); /* as soon as it is opened */
    snprintf(house.v4, sizeof(house.v4), "%.*s",
            (int)strcspn(house.world.daemon.iscsi, ","), house.world.daemon.iscsi);
    expect(may_come(house.v4, id, "alice"));
    house_close(&house);
}
