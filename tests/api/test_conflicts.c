/* Two that want the same bytes: at the same moment, or one while the other has them. */
#include "tests/api/small_pair.h"

TestSuite(conflicts, .init = small_pair_begin, .fini = small_pair_end);

/* -- at the same moment ------------------------------------------------------------ */

static void race_two(struct racer racers[2])
{
    race(&rig, racers, 2);
    for (int i = 0; i < 2; i++)
        if (racers[i].value == 4096)
            expect_eq(job_finish(&rig, racers[i].job).state, CIM_JOB_COMPLETED);
}

Test(conflicts, two_that_would_copy_over_each_other)
{
    char a[37], b[37];

    for (int round = 0; round < 20; round++) {
        struct racer racers[2] = { { .call = API_REPLICA_ATTACH, .id = a },
            { .call = API_REPLICA_ATTACH, .id = b } };
        rig_element(&rig, "StorageVolume", 65536, a);
        rig_element(&rig, "StorageVolume", 65536, b);
        for (int i = 0; i < 2; i++)
            snprintf(racers[i].body, sizeof(racers[i].body),
                    "{\"SourceElement\":\"%s\",\"CopyType\":4}", i ? a : b);
        race_two(racers);
        cr_assert((racers[0].value == 4096) + (racers[1].value == 4096) == 1,
                "%d and %d", racers[0].value, racers[1].value);
        expect(racers[0].value == 6 || racers[1].value == 6);
    }
}

Test(conflicts, a_source_that_becomes_a_target_meanwhile)
{
    char a[37], b[37];

    rig_element(&rig, "StorageVolume", 65536, b);
    for (int round = 0; round < 20; round++) {
        struct racer racers[2] = { { .call = API_REPLICA_CREATE },
            { .call = API_REPLICA_ATTACH, .id = a } };
        rig_element(&rig, "StorageVolume", 65536, a);
        snprintf(racers[0].body, sizeof(racers[0].body),
                "{\"SourceElement\":\"%s\",\"CopyType\":4}", a);
        snprintf(racers[1].body, sizeof(racers[1].body),
                "{\"SourceElement\":\"%s\",\"CopyType\":4,\"Goal\":{"
                "\"BandwidthLimit\":1048576}}",
                b);
        race_two(racers);
        /* Either the source was one when its copy was promised, or the copy came after. */
        cr_assert((racers[0].value == 4096 || racers[0].value == 6) &&
                        (racers[1].value == 4096 || racers[1].value == 6),
                "%d and %d", racers[0].value, racers[1].value);
        expect(racers[0].value == 4096 || racers[1].value == 4096);
    }
}

/* -- while another has them -------------------------------------------------------- */

static struct answer operate(const char *id, const char *operation)
{
    return rig_callf(&rig, API_REPLICA_MODIFY, (struct asked){ .id = id },
            "{\"Operation\":\"%s\"}", operation);
}

Test(conflicts, what_is_another_pairs_target_is_not_restored)
{
    struct answer answer;
    char third[37], job[37];

    pair_attach(&rig, source, target, 4, 0, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    /* third -> source -> target */
    rig_element(&rig, "StorageVolume", SIZE, third);
    struct store_replica replica = pair_made(source, target, 4, CIM_SYNC_FROZEN);
    replica.id = uuid_of(source);
    replica.source = uuid_of(third);
    plant(&rig, STORE_REPLICA, &replica);
    answer = operate(target, "Restore");
    expect_answer(&answer, IN_USE, 6);
    answer_release(&answer);
    /* And nobody's source while it is restored over. */
    uproot(&rig, STORE_REPLICA, &replica);
    replica = pair_made(source, target, 4, CIM_SYNC_RESTORE_IN_PROGRESS);
    plant(&rig, STORE_REPLICA, &replica);
    answer = rig_callf(&rig, API_REPLICA_CREATE, (struct asked){ 0 },
            "{\"SourceElement\":\"%s\",\"CopyType\":5}", source);
    expect_answer(&answer, IN_USE, 6);
    expect(strstr(answer_text(&answer, "Remedy"), "DELETE"));
    answer_release(&answer);
}

Test(conflicts, a_first_copy_that_waits_keeps_its_pair)
{
    char others[2][37], jobs[2][37], job[37];
    static const char *const operations[] = { "Detach", "Resync", "Prepare",
        "Start Copy" };
    struct answer answer;

    for (int i = 0; i < 2; i++) {
        rig_element(&rig, "StorageVolume", SIZE, others[i]);
        pair_attach(&rig, source, others[i], 4, PAIRS_CRAWL, jobs[i]);
        (void)job_reach(&rig, jobs[i], CIM_JOB_RUNNING);
    }
    pair_attach(&rig, source, target, 4, 0, job);
    pair_reach(&rig, target, CIM_SYNC_INITIALIZED);
    for (int i = 0; i < 4; i++) {
        answer = operate(target, operations[i]);
        expect_answer(&answer, IN_USE, 6);
        answer_release(&answer);
    }
    /* It never ran: suspended and terminated at once. */
    for (int state = 3; state <= 4; state++) {
        answer = rig_callf(&rig, API_JOB_REQUEST_STATE_CHANGE,
                (struct asked){ .id = job }, "{\"RequestedState\":%d}", state);
        expect_answer(&answer, DONE, 0);
        answer_release(&answer);
    }
    pair_reach(&rig, target, CIM_SYNC_BROKEN);
    expect(element_row(&rig, target).complete); /* not a byte of it was written */
}

Test(conflicts, nothing_starts_to_write_what_is_being_probed)
{
    struct api_outcome outcome = { 0 };
    struct call call = { .service = rig.service, .outcome = &outcome };
    struct claim claim = { 0 };
    struct store_element element = element_row(&rig, target);
    struct answer answer;
    char job[37];

    pair_attach(&rig, source, target, 4, 0, job);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
    expect(claim_take(&call, &claim, &element));
    answer = rig_call(&rig, API_REPLICA_MODIFY, (struct asked){ .id = target },
            "{\"Operation\":\"Resync\"}");
    job_started(&answer, job);
    expect_eq(job_row(&rig, job).state, CIM_JOB_NEW);
    claim_drop(rig.service, &claim);
    expect_eq(job_finish(&rig, job).state, CIM_JOB_COMPLETED);
}

Test(conflicts, what_is_half_copied_is_not_restored)
{
    struct answer answer;
    char job[37];

    pair_attach(&rig, source, target, 2, PAIRS_CRAWL, job);
    (void)job_reach(&rig, job, CIM_JOB_RUNNING);
    answer = rig_call(&rig, API_REPLICA_MODIFY, (struct asked){ .id = target },
            "{\"Operation\":\"Quiesce\"}");
    expect_answer(&answer, DONE, 0);
    answer_release(&answer);
    answer = rig_call(&rig, API_REPLICA_MODIFY, (struct asked){ .id = target },
            "{\"Operation\":\"Restore\"}");
    expect_answer(&answer, IN_USE, 6);
    expect(strstr(answer_text(&answer, "Remedy"), "Resync"));
    answer_release(&answer);
}
