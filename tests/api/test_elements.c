/* Elements: what is registered, allocated and deleted; what is refused, and how. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "api/elements.h"
#include "tests/api/rig.h"

static struct rig rig;
static const struct asked nothing;

static void begin(void)
{
    rig_make(&rig);
    rig_start(&rig);
}

static void end(void)
{
    rig_remove(&rig);
}

TestSuite(elements, .init = begin, .fini = end);

static const char *path_of(const char *name)
{
    static char path[700];

    snprintf(path, sizeof(path), "%s/%s", rig.pool, name);
    return path;
}

static bool file_is_there(const char *name)
{
    struct stat status;

    return stat(path_of(name), &status) == 0;
}

static unsigned files_in_pool(void)
{
    unsigned count = 0;
    char command[800], line[32] = "0";
    FILE *pipe;

    snprintf(command, sizeof(command), "ls -A %s | wc -l", rig.pool);
    pipe = popen(command, "r");
    expect(pipe && fgets(line, sizeof(line), pipe));
    pclose(pipe);
    sscanf(line, "%u", &count);
    return count;
}

Test(elements, an_allocated_one_has_the_shape_of_the_contract)
{
    struct answer answer = rig_call(&rig, API_ELEMENT_CREATE, nothing,
            "{\"Type\":\"StorageVolume\",\"ElementName\":\"vol1\",\"Pool\":\"/pools/"
            "default\","
            "\"Size\":1048576}");
    char wanted[100], location[100];
    const char *id = answer_text(&answer, "Id");

    expect_answer(&answer, MADE, 0);
    snprintf(location, sizeof(location), "/elements/%s", id);
    expect_str(answer.outcome.location, location);
    expect_str(answer_text(&answer, "Self"), location);
    expect_str(answer_text(&answer, "Type"), "StorageVolume");
    expect_str(answer_text(&answer, "ElementName"), "vol1");
    snprintf(wanted, sizeof(wanted), "pool:default/%s.raw", id);
    expect_str(answer_text(&answer, "Address"), wanted);
    expect_str(answer_text(&answer, "Pool"), "/pools/default");
    expect_eq(answer_number(&answer, "BlockSize"), 512);
    expect_eq(answer_number(&answer, "NumberOfBlocks"), 2048);
    expect_eq(answer_number(&answer, "Size"), 1048576);
    expect(json_is_true(json_object_get(answer.json, "ThinlyProvisioned")));
    expect(json_is_false(json_object_get(answer.json, "Remote")));
    expect_eq(answer_number(&answer, "Usage"), 2);
    expect_str(answer_text(&answer, "UsageName"), "Unrestricted");
    expect_eq(answer_number(&answer, "HealthState"), 5);
    expect(json_is_null(json_object_get(answer.json, "Export")));
    expect(json_is_true(json_object_get(answer.json, "Complete")));
    expect_eq(json_array_size(json_object_get(answer.json, "Warnings")), 0);
    snprintf(wanted, sizeof(wanted), "%s.raw", id);
    expect(file_is_there(wanted));
    answer_release(&answer);
}

Test(elements, a_logical_file_has_any_length)
{
    struct answer answer;

    rig_file(&rig, "golden.img", 1001, 'x');
    answer = rig_call(&rig, API_ELEMENT_CREATE, nothing,
            "{\"Type\":\"LogicalFile\",\"Address\":\"pool:default/golden.img\"}");
    expect_answer(&answer, MADE, 0);
    expect_eq(answer_number(&answer, "Size"), 1001);
    expect_eq(answer_number(&answer, "BlockSize"), 1);
    expect_eq(answer_number(&answer, "NumberOfBlocks"), 1001);
    expect(json_is_null(json_object_get(answer.json, "Pool")));
    answer_release(&answer);
}

/** A body that is refused: verdict, return value, pointer, and that no file was left. */
static void refused(
        const char *body, enum api_verdict verdict, int value, const char *pointer)
{
    struct answer answer = rig_call(&rig, API_ELEMENT_CREATE, nothing, body);

    cr_assert(answer.outcome.verdict == verdict && answer.outcome.return_value == value,
            "%s: %s %d (%s)", body, verdict_name(answer.outcome.verdict),
            answer.outcome.return_value, answer_detail(&answer));
    if (pointer)
        expect_pointer(&answer, pointer);
    answer_release(&answer);
}

Test(elements, members_that_do_not_go_together_are_5)
{
    static const struct {
        const char *body, *pointer;
    } rows[] = {
        { "{\"Pool\":\"default\",\"Size\":512}", "/Type" },
        { "{\"Type\":\"Disk\",\"Pool\":\"default\",\"Size\":512}", "/Type" },
        { "{\"Type\":\"StorageVolume\"}", "" },
        { "{\"Type\":\"StorageVolume\",\"Pool\":\"default\",\"Size\":512,"
          "\"Address\":\"pool:default/x\"}",
                "/Pool" },
        { "{\"Type\":\"StorageVolume\",\"Pool\":\"default\"}", "/Size" },
        { "{\"Type\":\"StorageVolume\",\"Pool\":\"default\",\"Size\":0}", "/Size" },
        { "{\"Type\":\"StorageVolume\",\"Pool\":\"default\",\"Size\":513}", "/Size" },
        { "{\"Type\":\"StorageVolume\",\"Pool\":\"default\",\"Size\":-512}", "/Size" },
        { "{\"Type\":\"StorageVolume\",\"Pool\":\"default\",\"Size\":"
          "9223372036854775808}",
                "/Size" },
        { "{\"Type\":\"StorageVolume\",\"Pool\":\"default\",\"Size\":512,\"Offset\":0}",
                "/Offset" },
        { "{\"Type\":\"StorageVolume\",\"Pool\":\"default\",\"Size\":512,\"Remote\":"
          "true}",
                "/Remote" },
        { "{\"Type\":\"StorageVolume\",\"Pool\":\"default\",\"Size\":512,"
          "\"Credentials\":\"a\"}",
                "/Credentials" },
        { "{\"Type\":\"StorageVolume\",\"Address\":\"pool:default/x\",\"Size\":512}",
                "/Size" },
        { "{\"Type\":\"StorageExtent\",\"Pool\":\"default\",\"Size\":512}", "/Of" },
        { "{\"Type\":\"StorageVolume\",\"Pool\":\"default\",\"Size\":512,\"Colour\":1}",
                "/Colour" },
        { "{\"Type\":\"LogicalFile\",\"Address\":\"pool:default/"
          "x\",\"Credentials\":\"a\"}",
                "/Credentials" },
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        refused(rows[i].body, API_INVALID, 5, rows[i].pointer);
    expect_eq(files_in_pool(), 0);
}

static void refused_with(enum api_call call, const char *body, const char *detail)
{
    struct answer answer = rig_call(&rig, call, nothing, body);

    expect_str(answer_detail(&answer), detail);
    answer_release(&answer);
}

/* For a person who looks at the detail alone, as the row of /results shows it. */
Test(elements, a_refusal_names_the_members_it_is_about)
{
    struct answer answer;
    json_t *result;

    refused_with(API_ELEMENT_CREATE, "{}", "Type: is required");
    refused_with(API_ELEMENT_CREATE,
            "{\"Type\":\"StorageVolume\",\"Pool\":\"default\"}", "Size: is required");
    refused_with(API_ELEMENT_CREATE, "{\"Type\":\"StorageVolume\"}",
            "Exactly one of Address, Pool and Of says where the element is");
    refused_with(API_PIPE_CREATE, "{\"TargetEndpoint\":[\"127.0.0.1:0\"]}",
            "TargetEndpoint/0: port 0 cannot be connected to");
    refused_with(API_REPLICA_CREATE, "{\"Colour\":1}",
            "SourceElement: is required; CopyType: is required; "
            "Colour: there is no such member");
    answer = rig_call(&rig, API_RESULTS_LIST, nothing, NULL);
    result = json_array_get(json_object_get(answer.json, "Members"), 0);
    expect_str(json_string_value(json_object_get(result, "Detail")),
            "SourceElement: is required; CopyType: is required; "
            "Colour: there is no such member");
    answer_release(&answer);
}

Test(elements, types_that_are_not_built_are_1)
{
    refused("{\"Type\":\"FileSystem\",\"Pool\":\"default\",\"Size\":512}",
            API_NOT_SUPPORTED, 1, "/Type");
    refused("{\"Type\":\"CommonDatabase\",\"Address\":\"pool:default/x\"}",
            API_NOT_SUPPORTED, 1, "/Type");
}

Test(elements, addresses_that_are_none_are_5)
{
    static const char *const addresses[] = { "", "/etc/passwd", "pool:", "pool:default",
        "pool:default/", "pool:default/../x", "pool:default/a//b", "file:///etc/passwd",
        "iscsi://localhost/iqn.2026-11.example:t1/1", "iscsi://127.0.0.1:0/iqn.x:t/1",
        "iscsi://127.0.0.1/iqn.2026-11.example:t1",
        "iscsi://127.0.0.1/iqn.2026-11.example:t1/16384",
        "iscsi://user%secret@127.0.0.1/iqn.2026-11.example:t1/1" };
    char body[300];

    for (size_t i = 0; i < sizeof(addresses) / sizeof(*addresses); i++) {
        snprintf(body, sizeof(body), "{\"Type\":\"StorageVolume\",\"Address\":\"%s\"}",
                addresses[i]);
        refused(body, API_INVALID, 5, "/Address");
    }
}

Test(elements, references_to_nothing_are_5_and_404)
{
    refused("{\"Type\":\"StorageVolume\",\"Pool\":\"nowhere\",\"Size\":512}",
            API_NO_REFERENCE, 5, "/Pool");
    refused("{\"Type\":\"LogicalFile\",\"Address\":\"pool:nowhere/x\"}",
            API_NO_REFERENCE, 5, "/Address");
    refused("{\"Type\":\"LogicalFile\",\"Address\":\"pool:default/x\"}",
            API_NO_REFERENCE, 5, "/Address");
    refused("{\"Type\":\"StorageExtent\",\"Of\":\"/elements/"
            "01900000-0000-7000-8000-000000000000\",\"Offset\":0,\"Size\":512}",
            API_NO_REFERENCE, 5, "/Of");
}

Test(elements, a_link_does_not_lead_out_of_the_pool)
{
    expect(symlink("/etc/passwd", path_of("way-out")) == 0);
    refused("{\"Type\":\"LogicalFile\",\"Address\":\"pool:default/way-out\"}",
            API_INVALID, 5, "/Address");
}

Test(elements, what_is_no_file_of_bytes_is_refused)
{
    expect(mkdir(path_of("folder"), 0700) == 0);
    refused("{\"Type\":\"LogicalFile\",\"Address\":\"pool:default/folder\"}",
            API_INVALID, 5, "/Address");
    rig_file(&rig, "empty", 0, 0);
    refused("{\"Type\":\"LogicalFile\",\"Address\":\"pool:default/empty\"}",
            API_INVALID, 5, "/Address");
    rig_file(&rig, "odd", 513, 0);
    refused("{\"Type\":\"StorageVolume\",\"Address\":\"pool:default/odd\"}",
            API_INVALID, 5, "/Type");
    refused("{\"Type\":\"LogicalFile\",\"Address\":\"pool:default/odd/x\"}",
            API_NO_REFERENCE, 5, "/Address");
}

Test(elements, a_portal_off_the_list_is_refused_before_any_connection)
{
    refused("{\"Type\":\"StorageVolume\",\"Address\":"
            "\"iscsi://192.0.2.1:3260/iqn.2026-11.example:t1/1\"}",
            API_INVALID, 5, "/Address");
}

Test(elements, a_portal_where_nobody_listens_is_4)
{
    refused("{\"Type\":\"StorageVolume\",\"Address\":"
            "\"iscsi://127.0.0.1:1/iqn.2026-11.example:t1/1\"}",
            API_FAR_SIDE, 4, NULL);
}

Test(elements, credentials_are_a_name_and_a_file_that_is_there)
{
    refused("{\"Type\":\"StorageVolume\",\"Credentials\":\"../secret\",\"Address\":"
            "\"iscsi://127.0.0.1:1/iqn.2026-11.example:t1/1\"}",
            API_INVALID, 5, "/Credentials");
    refused("{\"Type\":\"StorageVolume\",\"Credentials\":\"array-a\",\"Address\":"
            "\"iscsi://127.0.0.1:1/iqn.2026-11.example:t1/1\"}",
            API_INVALID, 5, "/Credentials");
}

Test(elements, a_secret_in_an_address_is_not_kept)
{
    struct answer answer;
    char *text;

    refused("{\"Type\":\"StorageVolume\",\"Address\":"
            "\"iscsi://user%verysecret@127.0.0.1/iqn.2026-11.example:t1/1\"}",
            API_INVALID, 5, "/Address");
    refused("{\"Type\":\"StorageVolume\",\"Credentials\":\"user:verysecret\","
            "\"Address\":"
            "\"iscsi://127.0.0.1:1/iqn.2026-11.example:t1/1\"}",
            API_INVALID, 5, "/Credentials");
    answer = rig_call(&rig, API_RESULTS_LIST, nothing, NULL);
    text = json_dumps(answer.json, 0);
    expect_eq(json_array_size(json_object_get(answer.json, "Members")), 2);
    cr_assert(strstr(text, "verysecret") == NULL, "%s", text);
    free(text);
    answer_release(&answer);
}

Test(elements, the_same_file_twice_is_6_and_named)
{
    struct answer answer;
    char holder[80], remedy[100];

    rig_file(&rig, "one", 4096, 'x');
    answer = rig_call(&rig, API_ELEMENT_CREATE, nothing,
            "{\"Type\":\"LogicalFile\",\"Address\":\"pool:default/one\"}");
    snprintf(holder, sizeof(holder), "%s", answer.outcome.location);
    answer_release(&answer);
    expect(link(path_of("one"), "/dev/null/x") != 0);
    {
        char other[700];
        snprintf(other, sizeof(other), "%s", path_of("two"));
        expect(link(path_of("one"), other) == 0);
    }
    answer = rig_call(&rig, API_ELEMENT_CREATE, nothing,
            "{\"Type\":\"LogicalFile\",\"Address\":\"pool:default/two\"}");
    expect_answer(&answer, IN_USE, 6);
    expect_str(json_string_value(
                       json_array_get(json_object_get(answer.json, "Holders"), 0)),
            holder);
    snprintf(remedy, sizeof(remedy), "DELETE %s", holder);
    expect_str(answer_text(&answer, "Remedy"), remedy);
    answer_release(&answer);
}

Test(elements, a_pools_own_file_cannot_be_registered_by_its_address)
{
    char id[37], body[200];

    rig_element(&rig, "StorageVolume", 4096, id);
    snprintf(body, sizeof(body),
            "{\"Type\":\"LogicalFile\",\"Address\":\"pool:default/%s.raw\"}", id);
    refused(body, API_IN_USE, 6, "/Address");
}

Test(elements, delete_returns_the_bytes_of_a_pools_element)
{
    struct answer answer;
    char id[37], file[60];

    rig_element(&rig, "StorageVolume", 4096, id);
    snprintf(file, sizeof(file), "%s.raw", id);
    expect(file_is_there(file));
    answer = rig_call(&rig, API_ELEMENT_DELETE, (struct asked){ .id = id }, NULL);
    expect_answer(&answer, DONE, 0);
    expect_eq(answer_number(&answer, "ReturnValue"), 0);
    answer_release(&answer);
    expect(!file_is_there(file));
    answer = rig_call(&rig, API_ELEMENT_GET, (struct asked){ .id = id }, NULL);
    expect_answer(&answer, NOT_FOUND, -1);
    answer_release(&answer);
    answer = rig_call(&rig, API_ELEMENT_DELETE, (struct asked){ .id = id }, NULL);
    expect_answer(&answer, NO_REFERENCE, 5);
    answer_release(&answer);
}

Test(elements, bytes_that_could_not_go_go_at_the_next_start)
{
    struct answer answer;
    char id[37], file[60];

    rig_element(&rig, "StorageVolume", 4096, id);
    snprintf(file, sizeof(file), "%s.raw", id);
    expect(unlink(path_of(file)) == 0 && mkdir(path_of(file), 0700) == 0);
    answer = rig_call(&rig, API_ELEMENT_DELETE, (struct asked){ .id = id }, NULL);
    expect_answer(&answer, DONE, 0);
    answer_release(&answer);
    expect(rmdir(path_of(file)) == 0);
    rig_file(&rig, file, 4096, 'x');
    rig_file(&rig, "01900000-0000-7000-8000-000000000000.raw", 4096, 'x');
    rig_stop(&rig);
    rig_start(&rig);
    expect(!file_is_there(file));
    expect(file_is_there("01900000-0000-7000-8000-000000000000.raw")); /* not ours */
}

Test(elements, delete_forgets_a_registered_one_and_its_bytes_stay)
{
    struct answer answer;
    char id[37];

    rig_file(&rig, "mine", 4096, 'x');
    answer = rig_call(&rig, API_ELEMENT_CREATE, nothing,
            "{\"Type\":\"LogicalFile\",\"Address\":\"pool:default/mine\"}");
    snprintf(id, sizeof(id), "%s", answer_text(&answer, "Id"));
    answer_release(&answer);
    answer = rig_call(&rig, API_ELEMENT_DELETE, (struct asked){ .id = id }, NULL);
    expect_answer(&answer, DONE, 0);
    answer_release(&answer);
    expect(file_is_there("mine"));
}

static bool put_element(struct clerk_turn *turn, void *context)
{
    turn_put(turn, STORE_ELEMENT, context);
    return true;
}

struct likeness_asked {
    struct element_making making;
    bool new;
};

static bool likeness_work(struct clerk_turn *turn, void *context)
{
    struct likeness_asked *asked = context;

    asked->new = element_is_new(&asked->making, turn);
    return false;
}

Test(elements, a_world_wide_identity_is_one_thing_and_a_likeness_is_a_warning)
{
    struct store_element known = { .id = uuid_make(),
        .type = ELEMENT_STORAGE_VOLUME,
        .place = "lun:127.0.0.1:3260,iqn.a,1",
        .world = "naa.6001405",
        .weak = "vendor 1" };
    struct api_outcome outcome = { 0 };
    struct api_request request = { .call = API_ELEMENT_CREATE };
    struct call call = {
        .service = rig.service, .request = &request, .outcome = &outcome
    };
    struct likeness_asked asked = { .making = { .call = &call } };
    struct store_element *row = &asked.making.row;

    expect_eq(clerk_call(rig.service->clerk, put_element, &known), 0);
    snprintf(row->place, sizeof(row->place), "lun:127.0.0.1:3261,iqn.a,1");
    snprintf(row->world, sizeof(row->world), "naa.6001405");
    expect_eq(clerk_call(rig.service->clerk, likeness_work, &asked), 0);
    expect(!asked.new &&outcome.verdict == API_IN_USE);
    api_outcome_release(&outcome);
    row->world[0] = '\0';
    snprintf(row->weak, sizeof(row->weak), "vendor 1");
    expect_eq(clerk_call(rig.service->clerk, likeness_work, &asked), 0);
    expect(asked.new);
    expect(strstr(row->warnings, known.id.text) != NULL);
    row->weak[0] = row->warnings[0] = '\0';
    expect_eq(clerk_call(rig.service->clerk, likeness_work, &asked), 0);
    expect(asked.new && row->warnings[0] == '\0');
}

struct racer {
    pthread_t thread;
    struct answer answer;
};

static void *race(void *context)
{
    ((struct racer *)context)->answer = rig_call(&rig, API_ELEMENT_CREATE, nothing,
            "{\"Type\":\"LogicalFile\",\"Address\":\"pool:default/one\"}");
    return NULL;
}

Test(elements, of_many_that_register_the_same_file_one_does)
{
    struct racer racers[12];
    unsigned made = 0, refused_ones = 0;

    rig_file(&rig, "one", 4096, 'x');
    for (int i = 0; i < 12; i++)
        expect_eq(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
    for (int i = 0; i < 12; i++) {
        pthread_join(racers[i].thread, NULL);
        made += racers[i].answer.outcome.verdict == API_MADE;
        refused_ones += racers[i].answer.outcome.verdict == API_IN_USE;
        answer_release(&racers[i].answer);
    }
    expect_eq(made, 1);
    expect_eq(refused_ones, 11);
}

Test(elements, patch_changes_the_name_and_minds_the_tag)
{
    struct answer answer;
    char id[37], tag[64];

    rig_element(&rig, "StorageVolume", 4096, id);
    answer = rig_call(&rig, API_ELEMENT_GET, (struct asked){ .id = id }, NULL);
    snprintf(tag, sizeof(tag), "%s", answer.outcome.etag);
    answer_release(&answer);
    answer = rig_call(&rig, API_ELEMENT_GET,
            (struct asked){ .id = id, .if_none_match = tag }, NULL);
    expect_answer(&answer, NOT_MODIFIED, -1);
    answer_release(&answer);
    answer = rig_call(&rig, API_ELEMENT_PATCH,
            (struct asked){ .id = id, .if_match = tag }, "{\"ElementName\":\"other\"}");
    expect_answer(&answer, DONE, -1);
    expect_str(answer_text(&answer, "ElementName"), "other");
    expect(strcmp(answer.outcome.etag, tag) != 0);
    answer_release(&answer);
    answer = rig_call(&rig, API_ELEMENT_PATCH,
            (struct asked){ .id = id, .if_match = tag }, "{\"ElementName\":\"third\"}");
    expect_answer(&answer, PRECONDITION, -1);
    answer_release(&answer);
    answer = rig_call(
            &rig, API_ELEMENT_PATCH, (struct asked){ .id = id }, "{\"Size\":1}");
    expect_answer(&answer, INVALID, -1);
    answer_release(&answer);
    answer = rig_call(&rig, API_ELEMENT_PATCH, (struct asked){ .id = id },
            "{\"ElementName\":null}");
    expect_answer(&answer, INVALID, -1);
    expect_str(answer_detail(&answer), "ElementName: cannot be removed");
    answer_release(&answer);
    answer = rig_call(&rig, API_ELEMENT_DELETE,
            (struct asked){ .id = id, .if_match = tag }, NULL);
    expect_eq(answer.outcome.verdict, API_PRECONDITION);
    answer_release(&answer);
}

Test(elements, they_are_there_after_a_restart)
{
    struct answer answer;
    char id[37];

    rig_element(&rig, "StorageVolume", 4096, id);
    rig_stop(&rig);
    rig_start(&rig);
    answer = rig_call(&rig, API_ELEMENT_GET, (struct asked){ .id = id }, NULL);
    expect_answer(&answer, DONE, -1);
    answer_release(&answer);
}
