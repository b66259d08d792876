/* Idempotency keys: the first answer again, over a restart too; another body; under way. */
#include <stdio.h>
#include <string.h>

#include "api/service.h"
#include "replica/base/clock.h"
#include "tests/api/pairs.h"

static struct rig rig;

static void begin(void)
{
    rig_make(&rig);
    rig_start(&rig);
}

static void end(void)
{
    rig_remove(&rig);
}

TestSuite(keys, .init = begin, .fini = end);

static const char body[] =
        "{\"Type\":\"StorageVolume\",\"Pool\":\"default\",\"Size\":4096}";
static const char same[] =
        "{ \"Size\":4096,\n\"Pool\":\"default\",\"Type\":\"StorageVolume\"}";
static const char other[] =
        "{\"Type\":\"StorageVolume\",\"Pool\":\"default\",\"Size\":8192}";

static struct answer create(const char *key, const char *text)
{
    return rig_call(&rig, API_ELEMENT_CREATE, (struct asked){ .key = key }, text);
}

static size_t elements(void)
{
    struct answer answer = rig_call(&rig, API_ELEMENTS_LIST, (struct asked){ 0 }, NULL);
    size_t count = json_array_size(json_object_get(answer.json, "Members"));

    answer_release(&answer);
    return count;
}

Test(keys, the_same_key_and_body_get_the_first_answer)
{
    struct answer first = create("k1", body), second = create("k1", same);

    expect_answer(&first, MADE, 0);
    expect(!first.outcome.replayed);
    expect_answer(&second, MADE, 0);
    expect(second.outcome.replayed);
    expect_str(second.outcome.location, first.outcome.location);
    expect_str(second.outcome.etag, first.outcome.etag);
    expect_str(second.outcome.body, first.outcome.body);
    expect_eq(second.outcome.length, first.outcome.length);
    answer_release(&first);
    answer_release(&second);
    expect_eq(elements(), 1);
}

Test(keys, it_holds_over_a_restart)
{
    struct answer first = create("k1", body), second;

    rig_stop(&rig);
    rig_start(&rig);
    second = create("k1", body);
    expect(second.outcome.replayed);
    expect_str(second.outcome.location, first.outcome.location);
    answer_release(&first);
    answer_release(&second);
    expect_eq(elements(), 1);
}

Test(keys, another_body_is_refused)
{
    struct answer answer = create("k1", body);

    answer_release(&answer);
    answer = create("k1", other);
    expect_answer(&answer, KEY_REUSED, -1);
    answer_release(&answer);
    expect_eq(elements(), 1);
}

Test(keys, a_key_belongs_to_the_call_and_the_path)
{
    struct answer answer = create("k1", body);
    char a[37], b[37];

    answer_release(&answer);
    rig_element(&rig, "StorageVolume", 4096, a);
    rig_element(&rig, "StorageVolume", 4096, b);
    for (int i = 0; i < 2; i++) {
        answer = rig_call(&rig, API_ELEMENT_PATCH,
                (struct asked){ .id = i ? a : b, .key = "k1" },
                "{\"ElementName\":\"x\"}");
        expect_answer(&answer, DONE, -1);
        expect(!answer.outcome.replayed);
        answer_release(&answer);
    }
}

Test(keys, a_refusal_is_not_kept)
{
    struct answer answer = create("k1", "{\"Type\":\"FileSystem\"}");

    expect_answer(&answer, NOT_SUPPORTED, 1);
    answer_release(&answer);
    answer = create("k1", "{\"Type\":\"FileSystem\"}");
    expect_answer(&answer, NOT_SUPPORTED, 1);
    expect(!answer.outcome.replayed);
    answer_release(&answer);
    answer = create("k1", body);
    expect_answer(&answer, MADE, 0);
    answer_release(&answer);
}

Test(keys, it_is_1_to_255_printable_characters)
{
    char long_key[300];
    struct answer answer;

    memset(long_key, 'k', sizeof(long_key));
    long_key[256] = '\0';
    answer = create(long_key, body);
    expect_answer(&answer, MALFORMED, -1);
    answer_release(&answer);
    answer = create("", body);
    expect_answer(&answer, MALFORMED, -1);
    answer_release(&answer);
    answer = create("tab\there", body);
    expect_answer(&answer, MALFORMED, -1);
    answer_release(&answer);
    long_key[255] = '\0';
    answer = create(long_key, body);
    expect_answer(&answer, MADE, 0);
    answer_release(&answer);
}

Test(keys, a_deletion_is_answered_again)
{
    struct answer answer;
    char id[37];

    rig_element(&rig, "StorageVolume", 4096, id);
    for (int i = 0; i < 2; i++) {
        answer = rig_call(&rig, API_ELEMENT_DELETE,
                (struct asked){ .id = id, .key = "gone" }, NULL);
        expect_answer(&answer, DONE, 0);
        expect_eq(answer.outcome.replayed, i == 1);
        answer_release(&answer);
    }
}

static bool age_work(struct clerk_turn *turn, void *context)
{
    struct store_key row;
    char key[STORE_ADDRESS];

    (void)context;
    snprintf(key, sizeof(key), "ELEMENT_CREATE - k1");
    expect(turn_get(turn, STORE_KEY, key, &row));
    row.time -= 24 * 3600 * 1000 + 1;
    turn_put(turn, STORE_KEY, &row);
    return true;
}

Test(keys, it_is_forgotten_after_a_day)
{
    struct answer answer = create("k1", body);

    answer_release(&answer);
    expect_eq(clerk_call(rig.service->clerk, age_work, NULL), 0);
    answer = create("k1", other);
    expect_answer(&answer, MADE, 0);
    expect(!answer.outcome.replayed);
    answer_release(&answer);
}

Test(keys, of_many_at_once_one_is_made)
{
    struct racer racers[16] = { 0 };
    unsigned made = 0, replayed = 0, busy = 0;

    for (int i = 0; i < 16; i++) {
        racers[i].call = API_ELEMENT_CREATE;
        racers[i].key = "race";
        strcpy(racers[i].body, body);
    }
    race(&rig, racers, 16);
    for (int i = 0; i < 16; i++) {
        if (racers[i].verdict == API_KEY_BUSY)
            busy++;
        else if (racers[i].replayed)
            replayed++;
        else if (racers[i].verdict == API_MADE)
            made++;
    }
    expect_eq(made, 1);
    expect_eq(made + replayed + busy, 16);
    expect_eq(elements(), 1);
}
