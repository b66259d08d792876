/* Goals: JSON and MOF, what is heard, what is refused as wrong and what as not supported. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/json/body.h"
#include "api/json/goal.h"

static struct goal goal;
static struct body_problems problems;

static int parse(const char *text)
{
    problems.count = 0;
    memset(&goal, 0x5a, sizeof goal);
    return goal_parse(text, strlen(text), "/Goal", &goal, &problems);
}

/* Parses, and its given properties are @want. */
static void means(const char *text, const char *want)
{
    int result = parse(text);
    char *have = result == 0 ? goal_text(&goal) : NULL;

    cr_expect(result == 0 && problems.count == 0, "%s: %d, %s: %s", text, result,
            problems.list[0].pointer, problems.list[0].detail);
    cr_expect(!have || strcmp(have, want) == 0, "%s: %s, not %s", text, have, want);
    free(have);
}

Test(goal, defaults)
{
    cr_assert(parse("{}") == 0);
    cr_assert(goal.initial_synchronization == 2 && goal.replication_priority == 3);
    cr_assert(goal.desired_rpo == 300 && goal.copy_recovery_mode == 2);
    cr_assert(!goal.failed_copy_stops_host_io && !goal.verify && goal.limit == 0);
    cr_assert(!goal.given_desired_rpo && !goal.given_verify);
    means("{}", "{}");
    means(" \r\n\t{ }", "{}");
}

Test(goal, every_property_that_is_heard)
{
    means("{\"InitialSynchronization\":0}", "{\"InitialSynchronization\":0}");
    means("{\"InitialSynchronization\":1}", "{\"InitialSynchronization\":1}");
    means("{\"InitialSynchronization\":2}", "{\"InitialSynchronization\":2}");
    means("{\"InitialSynchronization\":3}", "{\"InitialSynchronization\":3}");
    means("{\"InitialSynchronization\":\"Do Not Start\"}",
            "{\"InitialSynchronization\":3}");
    means("{\"ReplicationPriority\":0}", "{\"ReplicationPriority\":0}");
    means("{\"ReplicationPriority\":4}", "{\"ReplicationPriority\":4}");
    means("{\"ReplicationPriority\":\"Low\"}", "{\"ReplicationPriority\":2}");
    means("{\"DesiredRPO\":10}", "{\"DesiredRPO\":10}");
    means("{\"DesiredRPO\":4294967295}", "{\"DesiredRPO\":4294967295}");
    means("{\"CopyRecoveryMode\":2}", "{\"CopyRecoveryMode\":2}");
    means("{\"CopyRecoveryMode\":\"Manual\"}", "{\"CopyRecoveryMode\":3}");
    means("{\"FailedCopyStopsHostIO\":false}", "{\"FailedCopyStopsHostIO\":false}");
    means("{\"DesiredCopyMethodology\":0}", "{\"DesiredCopyMethodology\":0}");
    means("{\"DesiredCopyMethodology\":2}", "{\"DesiredCopyMethodology\":2}");
    means("{\"DesiredCopyMethodology\":\"Full-Copy\"}",
            "{\"DesiredCopyMethodology\":3}");
    means("{\"BandwidthLimit\":0}", "{\"BandwidthLimit\":0}");
    means("{\"BandwidthLimit\":9223372036854775807}",
            "{\"BandwidthLimit\":9223372036854775807}");
    means("{\"Verify\":true}", "{\"Verify\":true}");
    means("{\"Verify\":false}", "{\"Verify\":false}");
    means("{\"ThinProvisionedPoolType\":9}", "{\"ThinProvisionedPoolType\":9}");
    means("{\"ThinProvisionedInitialReserve\":0}",
            "{\"ThinProvisionedInitialReserve\":0}");
    means("{\"ElementName\":\"x\",\"InstanceID\":\"y\",\"Verify\":null}", "{}");
    means("{\"Verify\":true,\"DesiredRPO\":60,\"BandwidthLimit\":1}",
            "{\"BandwidthLimit\":1,\"DesiredRPO\":60,\"Verify\":true}");
}

static void refused(const char *text, const char *pointer, bool unsupported)
{
    int result = parse(text);

    cr_expect(result == -EINVAL, "%s: %d", text, result);
    cr_expect(problems.count == 1, "%s: %u problems", text, problems.count);
    cr_expect(strcmp(problems.list[0].pointer, pointer) == 0, "%s: at %s", text,
            problems.list[0].pointer);
    cr_expect(problems.list[0].unsupported == unsupported, "%s", text);
}

Test(goal, out_of_range_is_wrong)
{
    refused("{\"InitialSynchronization\":4}", "/Goal/InitialSynchronization", false);
    refused("{\"InitialSynchronization\":-1}", "/Goal/InitialSynchronization", false);
    refused("{\"InitialSynchronization\":2.0}", "/Goal/InitialSynchronization", false);
    refused("{\"InitialSynchronization\":\"2\"}", "/Goal/InitialSynchronization",
            false);
    refused("{\"InitialSynchronization\":\"start\"}", "/Goal/InitialSynchronization",
            false);
    refused("{\"InitialSynchronization\":true}", "/Goal/InitialSynchronization", false);
    refused("{\"ReplicationPriority\":5}", "/Goal/ReplicationPriority", false);
    refused("{\"ReplicationPriority\":\"Urgent\"}", "/Goal/ReplicationPriority", false);
    refused("{\"ReplicationPriority\":-4}", "/Goal/ReplicationPriority", false);
    refused("{\"DesiredRPO\":9}", "/Goal/DesiredRPO", false);
    refused("{\"DesiredRPO\":0}", "/Goal/DesiredRPO", false);
    refused("{\"DesiredRPO\":4294967296}", "/Goal/DesiredRPO", false);
    refused("{\"DesiredRPO\":\"60\"}", "/Goal/DesiredRPO", false);
    refused("{\"DesiredRPO\":60.0}", "/Goal/DesiredRPO", false);
    refused("{\"CopyRecoveryMode\":0}", "/Goal/CopyRecoveryMode", false);
    refused("{\"CopyRecoveryMode\":1}", "/Goal/CopyRecoveryMode", false);
    refused("{\"CopyRecoveryMode\":4}", "/Goal/CopyRecoveryMode", false);
    refused("{\"CopyRecoveryMode\":\"Unknown\"}", "/Goal/CopyRecoveryMode", false);
    refused("{\"DesiredCopyMethodology\":11}", "/Goal/DesiredCopyMethodology", false);
    refused("{\"DesiredCopyMethodology\":65535}", "/Goal/DesiredCopyMethodology",
            false);
    refused("{\"ThinProvisionedPoolType\":6}", "/Goal/ThinProvisionedPoolType", false);
    refused("{\"ThinProvisionedPoolType\":10}", "/Goal/ThinProvisionedPoolType", false);
    refused("{\"ThinProvisionedPoolType\":65545}", "/Goal/ThinProvisionedPoolType",
            false);
    refused("{\"ThinProvisionedInitialReserve\":-1}",
            "/Goal/ThinProvisionedInitialReserve", false);
    refused("{\"BandwidthLimit\":-1}", "/Goal/BandwidthLimit", false);
    refused("{\"BandwidthLimit\":9223372036854775808}", "/Goal/BandwidthLimit", false);
    refused("{\"FailedCopyStopsHostIO\":0}", "/Goal/FailedCopyStopsHostIO", false);
    refused("{\"Verify\":\"true\"}", "/Goal/Verify", false);
    refused("{\"Verify\":{}}", "/Goal/Verify", false);
    refused("{\"ElementName\":1}", "/Goal/ElementName", false);
    refused("{\"InstanceID\":[]}", "/Goal/InstanceID", false);
    refused("{\"ElementName\":\"a\\u0007\"}", "/Goal/ElementName", false);
    refused("{\"Unknown\":1}", "/Goal/Unknown", false);
    refused("{\"Unknown\":null}", "/Goal/Unknown", false);
    refused("{\"desiredRPO\":60}", "/Goal/desiredRPO", false);
    refused("{\"kind\":\"instance\"}", "/Goal/kind", false);
}

Test(goal, known_to_cim_and_not_done_is_not_supported)
{
    refused("{\"FailedCopyStopsHostIO\":true}", "/Goal/FailedCopyStopsHostIO", true);
    refused("{\"DesiredCopyMethodology\":1}", "/Goal/DesiredCopyMethodology", true);
    refused("{\"DesiredCopyMethodology\":4}", "/Goal/DesiredCopyMethodology", true);
    refused("{\"DesiredCopyMethodology\":6}", "/Goal/DesiredCopyMethodology", true);
    refused("{\"DesiredCopyMethodology\":\"Copy-On-Write\"}",
            "/Goal/DesiredCopyMethodology", true);
    refused("{\"DesiredCopyMethodology\":10}", "/Goal/DesiredCopyMethodology", true);
    refused("{\"ThinProvisionedPoolType\":7}", "/Goal/ThinProvisionedPoolType", true);
    refused("{\"ThinProvisionedPoolType\":8}", "/Goal/ThinProvisionedPoolType", true);
    refused("{\"ThinProvisionedInitialReserve\":1}",
            "/Goal/ThinProvisionedInitialReserve", true);
    refused("{\"UseReplicationBuffer\":2}", "/Goal/UseReplicationBuffer", true);
    refused("{\"IncrementalDeltas\":true}", "/Goal/IncrementalDeltas", true);
    refused("{\"PersistentReplica\":false}", "/Goal/PersistentReplica", true);
    refused("{\"NoSinglePointOfFailure\":true}", "/Goal/NoSinglePointOfFailure", true);
    refused("{\"DeltaReservationGoal\":50}", "/Goal/DeltaReservationGoal", true);
    refused("{\"StorageExtentInitialUsage\":2}", "/Goal/StorageExtentInitialUsage",
            true);
    refused("{\"ChangeableType\":0}", "/Goal/ChangeableType", true);
    refused("{\"Caption\":\"x\"}", "/Goal/Caption", true);
    refused("{\"CopyPriority\":3}", "/Goal/CopyPriority", true);
    refused("{\"Multihop\":1}", "/Goal/Multihop", true);
    refused("{\"ReadOnly\":2}", "/Goal/ReadOnly", true);
    refused("{\"AutoDelete\":true}", "/Goal/AutoDelete", true);
    refused("{\"TargetElementSupplier\":4}", "/Goal/TargetElementSupplier", true);
    means("{\"AutoDelete\":null}", "{}");
}

Test(goal, wrong_and_unsupported_together)
{
    cr_assert(parse("{\"AutoDelete\":true,\"DesiredRPO\":1}") == -EINVAL);
    cr_assert(problems.count == 2);
    cr_assert(problems.list[0].unsupported && !problems.list[1].unsupported);
}

Test(goal, a_full_list_of_problems_makes_nothing_right)
{
    static const char *const texts[] = { "{\"Nope\":1}", "{", "instance", "{}" };

    for (int i = 0; i < 4; i++) {
        problems.count = BODY_PROBLEMS_MAX;
        cr_assert(goal_parse(texts[i], strlen(texts[i]), "", &goal, &problems) ==
                -EINVAL);
    }
}

/* -- MOF --------------------------------------------------------------------------------- */

#define SETTING(text) "instance of CIM_StorageSetting {" text "};"

Test(mof, good)
{
    means("instance of CIM_StorageSetting { ReplicationPriority = 4; };",
            "{\"ReplicationPriority\":4}");
    means(SETTING(""), "{}");
    means("instance of CIM_SettingData{DesiredRPO=60;Verify=TRUE;};",
            "{\"DesiredRPO\":60,\"Verify\":true}");
    means("INSTANCE OF cim_replicationsettingdata {\r\n\tVerify = false ;\r\n} ;\r\n",
            "{\"Verify\":false}");
    means("// a comment\ninstance /* of */ of CIM_StorageSetting { // here\n"
          "/* InitialSynchronization = 2; */ InitialSynchronization = 3; }; // end",
            "{\"InitialSynchronization\":3}");
    means(SETTING("replicationpriority = 2;"), "{\"ReplicationPriority\":2}");
    means(SETTING("ReplicationPriority = +2;"), "{\"ReplicationPriority\":2}");
    means(SETTING("ReplicationPriority = 0x4;"), "{\"ReplicationPriority\":4}");
    means(SETTING("ReplicationPriority = 0X04;"), "{\"ReplicationPriority\":4}");
    means(SETTING("ReplicationPriority = 100b;"), "{\"ReplicationPriority\":4}");
    means(SETTING("ReplicationPriority = 0;"), "{\"ReplicationPriority\":0}");
    means(SETTING("ReplicationPriority = \"High\";"), "{\"ReplicationPriority\":4}");
    means(SETTING("ReplicationPriority = \"Hi\" \"gh\";"),
            "{\"ReplicationPriority\":4}");
    means(SETTING("BandwidthLimit = 0x7fffFFFFffffFFFF;"),
            "{\"BandwidthLimit\":9223372036854775807}");
    means(SETTING("InstanceID = \"a \\\"b\\\" \\\\\"; ElementName = \"\";"), "{}");
    means(SETTING("Verify = NULL; DesiredRPO = null;"), "{}");
    means(SETTING("ElementName = \"\xc3\xa9 // no comment /* }; \";"), "{}");
}

static const char *const bad_mof[] = { "", " ", ";", "instance", "instance of",
    "instance of CIM_StorageSetting", "instance of CIM_StorageSetting {",
    "instance of CIM_StorageSetting {}", "instance of CIM_StorageSetting };",
    "instance CIM_StorageSetting {};", "of CIM_StorageSetting {};",
    "instanceof CIM_StorageSetting {};", "instance of {};", "instance of CIM_Error {};",
    "instance of CIM_StorageSettings {};",
    "instance of Win32_Process { CommandLine = \"x\"; };",
    "class CIM_StorageSetting {};", "#pragma include (\"x\")\n" SETTING(""),
    "[Description(\"x\")] " SETTING(""), "instance of CIM_StorageSetting as $a {};",
    SETTING("") SETTING(""), SETTING("") "x", SETTING("") "}", SETTING("") "/*",
    SETTING("Verify"), SETTING("Verify;"), SETTING("Verify ="), SETTING("Verify = ;"),
    SETTING("Verify = TRUE"), SETTING("Verify TRUE;"), SETTING("Verify = TRUE,"),
    SETTING("= TRUE;"), SETTING("Verify == TRUE;"), SETTING("Verify = TRUE TRUE;"),
    SETTING("Verify = YES;"), SETTING("Verify = {TRUE};"), SETTING("Verify = {};"),
    SETTING("Verify = $alias;"), SETTING("Verify = 'c';"), SETTING("4 = 4;"),
    SETTING("Verify = TRUE; Verify = TRUE;"), SETTING("Verify = TRUE; VERIFY = FALSE;"),
    SETTING("Nope = 1; Nope = 1;"), SETTING("[key] Verify = TRUE;"),
    SETTING("DesiredRPO = 60.0;"), SETTING("DesiredRPO = 6e1;"),
    SETTING("DesiredRPO = 060;"), SETTING("DesiredRPO = 0x;"),
    SETTING("DesiredRPO = 0xg;"), SETTING("DesiredRPO = -;"),
    SETTING("DesiredRPO = +;"), SETTING("DesiredRPO = --60;"),
    SETTING("DesiredRPO = 60s;"), SETTING("DesiredRPO = 12b;"),
    SETTING("DesiredRPO = 6 0;"), SETTING("DesiredRPO = 0b1;"),
    SETTING("ElementName = \"a;"), SETTING("ElementName = \"a\\q\";"),
    SETTING("ElementName = \"a\\x41\";"), SETTING("ElementName = \"a\nb\";"),
    SETTING("ElementName = \"a\\\";"), SETTING("ElementName = \"a\" b;"),
    SETTING("ElementName = \"\xff\";"), SETTING("ElementName = \"\xc0\x80\";"),
    SETTING("ElementName = \"\xc1\xbf\";"), SETTING("ElementName = \"\xe0\x9f\xbf\";"),
    SETTING("ElementName = \"\xed\xa0\x80\";"),
    SETTING("ElementName = \"\xf0\x8f\xbf\xbf\";"),
    SETTING("ElementName = \"\xf4\x90\x80\x80\";"), "// \xc3\n" SETTING(""),
    SETTING("/* Verify = TRUE;"), SETTING("/"), SETTING("/ Verify = TRUE;"),
    SETTING("Verify = TRUE; /*/"),
    SETTING("AVeryLongNameThatNoPropertyOfAnyClassHasEverHadAndNeverWillHaveEither = "
            "1;"),
    "\xef\xbb\xbf" SETTING(""), "<INSTANCE CLASSNAME=\"CIM_StorageSetting\"/>" };

Test(mof, bad)
{
    for (size_t i = 0; i < sizeof bad_mof / sizeof bad_mof[0]; i++) {
        int result = parse(bad_mof[i]);
        cr_expect(result == -EINVAL, "%s: %d", bad_mof[i], result);
        cr_expect(problems.count == 1, "%s: %u problems", bad_mof[i], problems.count);
        cr_expect(strcmp(problems.list[0].pointer, "/Goal") == 0, "%s", bad_mof[i]);
        cr_expect(!problems.list[0].unsupported, "%s", bad_mof[i]);
    }
}

Test(mof, values_are_judged_as_in_json)
{
    refused(SETTING("ReplicationPriority = 5;"), "/Goal/ReplicationPriority", false);
    refused(SETTING("ReplicationPriority = -1;"), "/Goal/ReplicationPriority", false);
    refused(SETTING("ReplicationPriority = TRUE;"), "/Goal/ReplicationPriority", false);
    refused(SETTING("DesiredRPO = 9;"), "/Goal/DesiredRPO", false);
    refused(SETTING("DesiredRPO = 18446744073709551676;"), "/Goal/DesiredRPO", false);
    refused(SETTING("DesiredRPO = -18446744073709551556;"), "/Goal/DesiredRPO", false);
    refused(SETTING("BandwidthLimit = 0x8000000000000000;"), "/Goal/BandwidthLimit",
            false);
    refused(SETTING("BandwidthLimit = -9223372036854775808;"), "/Goal/BandwidthLimit",
            false);
    refused(SETTING("Verify = 1;"), "/Goal/Verify", false);
    refused(SETTING("Verify = \"TRUE\";"), "/Goal/Verify", false);
    refused(SETTING("Nope = 1;"), "/Goal/Nope", false);
    refused(SETTING("autodelete = TRUE;"), "/Goal/AutoDelete", true);
    refused(SETTING("FailedCopyStopsHostIO = TRUE;"), "/Goal/FailedCopyStopsHostIO",
            true);
    refused(SETTING("ElementName = \"a\\n\";"), "/Goal/ElementName", false);
}

Test(mof, a_string_has_1024_bytes_and_no_more)
{
    for (int length = 1020; length < 1040; length++) {
        char text[1200];
        (void)snprintf(text, sizeof text,
                "instance of CIM_SettingData { ElementName = \"%0*d\"; };", length, 0);
        refused(text, length <= 1024 ? "/Goal/ElementName" : "/Goal", false);
    }
}

Test(mof, the_line_is_told)
{
    cr_assert(parse("instance of\nCIM_StorageSetting {\n  Verify = maybe;\n};") ==
            -EINVAL);
    cr_assert(strstr(problems.list[0].detail, "line 3"), "%s", problems.list[0].detail);
}

Test(mof, a_nul_ends_nothing)
{
    static const char text[] = "instance of CIM_StorageSetting { };\0 more";

    problems.count = 0;
    cr_assert(goal_parse(text, sizeof text - 1, "/Goal", &goal, &problems) == -EINVAL);
    cr_assert(problems.count == 1);
}

Test(mof, long_texts_are_bounded)
{
    size_t room = 65536;
    char *text = malloc(room);

    strcpy(text, "instance of CIM_StorageSetting { ElementName = \"");
    memset(text + strlen(text), 'a',
            20000); /* malloc'ed bytes follow: the length rules */
    problems.count = 0;
    cr_assert(goal_parse(text, 20000, "/Goal", &goal, &problems) == -EINVAL);
    memset(text, ' ', room);
    problems.count = 0;
    cr_assert(goal_parse(text, room, "/Goal", &goal, &problems) == -EINVAL);
    memset(text, '/', room);
    problems.count = 0;
    cr_assert(goal_parse(text, room, "/Goal", &goal, &problems) == -EINVAL);
    free(text);
}

/* -- merge -------------------------------------------------------------------------------- */

Test(goal, merge_overlays_what_is_given_only)
{
    struct goal under, over;
    char *text;

    cr_assert(parse("{\"DesiredRPO\":60,\"Verify\":true,\"BandwidthLimit\":5}") == 0);
    under = goal;
    cr_assert(parse("{\"Verify\":false,\"ReplicationPriority\":4,\"BandwidthLimit\":"
                    "77777777777}") == 0);
    over = goal;
    goal_merge(&under, &over);
    text = goal_text(&under);
    cr_assert(strcmp(text,
                      "{\"BandwidthLimit\":77777777777,\"DesiredRPO\":60,"
                      "\"ReplicationPriority\":4,\"Verify\":false}") == 0,
            "%s", text);
    free(text);
}

Test(goal, text_comes_back_as_the_same_goal)
{
    static const char whole[] =
            "{\"BandwidthLimit\":7,\"CopyRecoveryMode\":3,\"DesiredCopyMethodology\":3,"
            "\"DesiredRPO\":11,\"FailedCopyStopsHostIO\":false,"
            "\"InitialSynchronization\":3,"
            "\"ReplicationPriority\":2,\"ThinProvisionedInitialReserve\":0,"
            "\"ThinProvisionedPoolType\":9,\"Verify\":true}";

    means(whole, whole);
    cr_assert(goal.limit == 7 && goal.copy_recovery_mode == 3 && goal.methodology == 3);
    cr_assert(goal.desired_rpo == 11 && goal.initial_synchronization == 3);
    cr_assert(
            goal.replication_priority == 2 && goal.verify && goal.thin_pool_type == 9);
    cr_assert(goal.given_limit && goal.given_copy_recovery_mode &&
            goal.given_methodology);
    cr_assert(goal.given_desired_rpo && goal.given_initial_synchronization);
    cr_assert(goal.given_replication_priority && goal.given_verify);
    cr_assert(goal.given_thin_pool_type && goal.given_thin_reserve);
    cr_assert(goal.given_failed_copy_stops_host_io);
}
