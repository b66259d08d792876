/* Exports of the whole service with two hosts on them, through libiscsi: reservations, unit
 * attentions, resets, what may be written and what was given back. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/service/exports.h"
#include "tests/support/expect.h"

enum {
    REGISTER = SCSI_PERSISTENT_RESERVE_REGISTER,
    RESERVE = SCSI_PERSISTENT_RESERVE_RESERVE,
    RELEASE = SCSI_PERSISTENT_RESERVE_RELEASE,
    CLEAR = SCSI_PERSISTENT_RESERVE_CLEAR,
    PREEMPT = SCSI_PERSISTENT_RESERVE_PREEMPT,
    WRITES = SCSI_PERSISTENT_RESERVE_TYPE_WRITE_EXCLUSIVE,
    ACCESS = SCSI_PERSISTENT_RESERVE_TYPE_EXCLUSIVE_ACCESS,
    WRITES_OF_REGISTRANTS =
            SCSI_PERSISTENT_RESERVE_TYPE_WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
    ACCESS_OF_REGISTRANTS =
            SCSI_PERSISTENT_RESERVE_TYPE_EXCLUSIVE_ACCESS_REGISTRANTS_ONLY,
    ACCESS_OF_ALL = SCSI_PERSISTENT_RESERVE_TYPE_EXCLUSIVE_ACCESS_ALL_REGISTRANTS,

    ATTENTION = SCSI_SENSE_UNIT_ATTENTION,
    PREEMPTED_RESERVATIONS = 0x2a03,
    RELEASED_RESERVATIONS = 0x2a04,
    PREEMPTED_REGISTRATIONS = 0x2a05,

    MAPS = 128, /* of 512 bytes */

    KEY_A = 0xa11ce,
    KEY_B = 0xb0b
};

/* Alice and Bob on the two portals of one export, and Carol, who never registers. */
struct hosts {
    struct house house;
    char id[WORLD_ID];
    struct iscsi_context *alice, *bob, *carol;
};

static void hosts_open(struct hosts *hosts, const char *body)
{
    house_open(&hosts->house, NULL);
    volume_make(&hosts->house, 8 * MIB, hosts->id);
    export_put(&hosts->house, 201, hosts->id, body);
    hosts->alice = host_come(hosts->house.v4, hosts->id, "alice");
    hosts->bob = host_come(hosts->house.v6, hosts->id, "bob");
    hosts->carol = host_come(hosts->house.v4, hosts->id, "carol");
}

static void hosts_close(struct hosts *hosts)
{
    host_leave(hosts->alice);
    host_leave(hosts->bob);
    host_leave(hosts->carol);
    house_close(&hosts->house);
}

static void both_register(struct hosts *hosts)
{
    expect_good(host_reserve(hosts->alice, REGISTER, 0, 0, KEY_A));
    expect_good(host_reserve(hosts->bob, REGISTER, 0, 0, KEY_B));
}

#define ALL "{\"Initiators\":[\"*\"]}"

Test(exports_hosts, reservations_keep_others_out)
{
    /* What a registered and an unregistered host may, beside the holder. */
    static const struct {
        int type;
        bool b_reads, b_writes, c_reads, c_writes;
    } rows[] = {
        { WRITES, true, false, true, false },
        { ACCESS, false, false, false, false },
        { WRITES_OF_REGISTRANTS, true, true, true, false },
        { ACCESS_OF_REGISTRANTS, true, true, false, false },
        { ACCESS_OF_ALL, true, true, false, false },
    };
    struct hosts hosts;

    hosts_open(&hosts, ALL);
    both_register(&hosts);
    expect_conflict(host_reserve(hosts.carol, RESERVE, WRITES, 0, 0));
    expect_conflict(host_reserve(hosts.alice, RESERVE, WRITES, KEY_B, 0));
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct {
            struct iscsi_context *host;
            bool reads, writes;
        } others[] = { { hosts.bob, rows[i].b_reads, rows[i].b_writes },
            { hosts.carol, rows[i].c_reads, rows[i].c_writes } };
        bool shared = rows[i].type >= WRITES_OF_REGISTRANTS;

        expect_good(host_reserve(hosts.alice, RESERVE, rows[i].type, KEY_A, 0));
        expect_good(host_write(hosts.alice, 0, 8, 1));
        expect_good(host_read(hosts.alice, 0, 8));
        for (unsigned n = 0; n < 2; n++) {
            struct said said = host_read(others[n].host, 0, 8);
            cr_assert((said.status == SCSI_STATUS_GOOD) == others[n].reads &&
                            (others[n].reads ||
                                    said.status == SCSI_STATUS_RESERVATION_CONFLICT),
                    "type %d, host %u reads: %d", rows[i].type, n, said.status);
            said = host_write(others[n].host, 0, 8, 2);
            cr_assert((said.status == SCSI_STATUS_GOOD) == others[n].writes &&
                            (others[n].writes ||
                                    said.status == SCSI_STATUS_RESERVATION_CONFLICT),
                    "type %d, host %u writes: %d", rows[i].type, n, said.status);
        }
        if (rows[i].type != ACCESS_OF_ALL) /* of which Bob is a holder too */
            expect_conflict(host_reserve(hosts.bob, RESERVE, rows[i].type, KEY_B, 0));
        expect_good(host_reserve(hosts.alice, RELEASE, rows[i].type, KEY_A, 0));
        if (shared)
            expect_sense(host_ready(hosts.bob), ATTENTION, RELEASED_RESERVATIONS);
        expect_good(host_ready(hosts.bob));
        expect_good(host_ready(hosts.alice));
        expect_good(host_write(hosts.carol, 0, 8, 3));
    }
    hosts_close(&hosts);
}

Test(exports_hosts, a_holder_is_preempted_and_hears_of_it)
{
    struct hosts hosts;

    hosts_open(&hosts, ALL);
    both_register(&hosts);
    expect_good(host_reserve(hosts.alice, RESERVE, WRITES, KEY_A, 0));
    expect_conflict(host_write(hosts.bob, 0, 8, 2));
    expect_good(host_reserve(hosts.bob, PREEMPT, WRITES, KEY_B, KEY_A));
    expect_sense(host_ready(hosts.alice), ATTENTION, PREEMPTED_REGISTRATIONS);
    expect_conflict(host_write(hosts.alice, 0, 8, 1));
    expect_conflict(host_reserve(hosts.alice, RELEASE, WRITES, KEY_A, 0));
    expect_good(host_write(hosts.bob, 0, 8, 2));
    expect_good(host_reserve(hosts.alice, REGISTER, 0, 0, KEY_A));
    expect_good(host_reserve(hosts.bob, CLEAR, 0, KEY_B, 0));
    expect_sense(host_ready(hosts.alice), ATTENTION, PREEMPTED_RESERVATIONS);
    expect_good(host_ready(hosts.bob));
    expect_good(host_write(hosts.alice, 0, 8, 1));
    expect_conflict(host_reserve(hosts.alice, RESERVE, WRITES, KEY_A, 0));
    hosts_close(&hosts);
}

Test(exports_hosts, reserve_6_and_what_a_reset_says)
{
    struct hosts hosts;
    struct said said;

    hosts_open(&hosts, ALL);
    expect_good(said_of(iscsi_reserve6_sync(hosts.alice, 0)));
    expect_conflict(host_write(hosts.bob, 0, 8, 2));
    expect_conflict(host_read(hosts.bob, 0, 8));
    expect_conflict(said_of(iscsi_reserve6_sync(hosts.bob, 0)));
    expect_good(said_of(iscsi_release6_sync(hosts.bob, 0))); /* of nothing: nothing */
    expect_conflict(host_write(hosts.bob, 0, 8, 2));
    expect_good(said_of(iscsi_release6_sync(hosts.alice, 0)));
    expect_good(host_write(hosts.bob, 0, 8, 2));
    expect_good(said_of(iscsi_reserve6_sync(hosts.bob, 0)));
    expect_conflict(host_write(hosts.alice, 0, 8, 1));
    expect_eq(iscsi_task_mgmt_lun_reset_sync(hosts.alice, 0), 0);
    said = host_ready(hosts.bob);
    cr_assert(said.status == SCSI_STATUS_CHECK_CONDITION && said.key == ATTENTION &&
                    said.code >> 8 == 0x29,
            "%d %x/%04x", said.status, said.key, said.code);
    host_settle(hosts.bob);
    host_settle(hosts.carol);
    host_settle(hosts.alice);
    expect_good(host_write(hosts.alice, 0, 8, 1)); /* the reset has released it */
    expect_good(host_write(hosts.bob, 0, 8, 2));
    both_register(&hosts);
    expect_conflict(said_of(iscsi_reserve6_sync(hosts.carol, 0)));
    hosts_close(&hosts);
}

Test(exports_hosts, what_is_read_only_is_protected)
{
    struct hosts hosts;
    struct said said;

    hosts_open(&hosts, "{\"Initiators\":[\"*\"],\"ReadOnly\":true}");
    expect_sense(host_write(hosts.alice, 0, 8, 1), SCSI_SENSE_DATA_PROTECTION, 0x2700);
    expect_good(host_read(hosts.alice, 0, 8));
    said = said_of(iscsi_modesense6_sync(
            hosts.alice, 0, 0, SCSI_MODESENSE_PC_CURRENT, 0x3f, 0, 255));
    expect_eq(said.status, SCSI_STATUS_GOOD);
    expect(said.length > 4 && (said.data[2] & 0x80));
    host_leave(hosts.bob);
    host_leave(hosts.carol);
    export_put(&hosts.house, 200, hosts.id, ALL);
    host_free(hosts.alice); /* what is served otherwise has to be opened anew */
    hosts.alice = host_come(hosts.house.v4, hosts.id, "alice");
    hosts.bob = host_come(hosts.house.v4, hosts.id, "bob");
    hosts.carol = host_come(hosts.house.v4, hosts.id, "carol");
    expect_good(host_write(hosts.alice, 0, 8, 1));
    said = said_of(iscsi_modesense6_sync(
            hosts.alice, 0, 0, SCSI_MODESENSE_PC_CURRENT, 0x3f, 0, 255));
    expect(said.length > 4 && !(said.data[2] & 0x80));
    hosts_close(&hosts);
}

/* -- what a thin volume gives back ------------------------------------------------------- */

/** Is the block at @lba mapped? *@blocks: up to where it is so. */
static bool is_mapped(struct iscsi_context *host, uint64_t lba, uint32_t *blocks)
{
    struct scsi_task *task = iscsi_get_lba_status_sync(host, 0, lba, 24);
    struct scsi_get_lba_status *found;
    bool mapped;

    cr_assert(task && task->status == SCSI_STATUS_GOOD, "%s", iscsi_get_error(host));
    found = scsi_datain_unmarshall(task);
    expect(found && found->num_descriptors == 1 && found->descriptors[0].lba == lba);
    mapped = found->descriptors[0].provisioning == SCSI_PROVISIONING_TYPE_MAPPED;
    *blocks = found->descriptors[0].num_blocks;
    scsi_free_scsi_task(task);
    return mapped;
}

Test(exports_hosts, unmap_gives_space_back)
{
    struct unmap_list ranges[] = { { 2 * MIB / SECTOR, MIB / SECTOR },
        { 4 * MIB / SECTOR, MIB / SECTOR } };
    struct scsi_readcapacity16 *capacity;
    char path[WORLD_PATH];
    struct stat before, after;
    struct scsi_task *task;
    struct hosts hosts;
    struct said said;
    uint32_t blocks;

    hosts_open(&hosts, ALL);
    element_file(&hosts.house.world, hosts.id, path);
    task = iscsi_readcapacity16_sync(hosts.alice, 0);
    expect(task && task->status == SCSI_STATUS_GOOD);
    capacity = scsi_datain_unmarshall(task);
    expect_eq(capacity->returned_lba, 8 * MIB / SECTOR - 1);
    expect_eq(capacity->block_length, SECTOR);
    expect(capacity->lbpme && capacity->lbprz);
    scsi_free_scsi_task(task);
    expect(!is_mapped(hosts.alice, 0, &blocks));
    expect_eq(blocks, 8 * MIB / SECTOR);
    for (unsigned mib = 1; mib < 6; mib++)
        expect_good(host_write(hosts.alice, mib * (MIB / SECTOR), MIB / SECTOR, 7));
    expect_good(said_of(iscsi_synchronizecache16_sync(hosts.alice, 0, 0, 0, 0, 0)));
    expect_eq(stat(path, &before), 0);
    expect(is_mapped(hosts.alice, MIB / SECTOR, &blocks));
    expect_eq(blocks, 5 * MIB / SECTOR);
    expect_good(said_of(iscsi_unmap_sync(hosts.alice, 0, 0, 0, ranges, 2)));
    expect_eq(stat(path, &after), 0);
    /* but what the file system itself needs to say where the rest is */
    expect(before.st_blocks - after.st_blocks >= 2 * MIB / 512 - MAPS);
    expect(before.st_blocks - after.st_blocks <= 2 * MIB / 512 + MAPS);
    expect(is_mapped(hosts.bob, MIB / SECTOR, &blocks));
    expect_eq(blocks, MIB / SECTOR);
    expect(!is_mapped(hosts.bob, 2 * MIB / SECTOR, &blocks));
    expect_eq(blocks, MIB / SECTOR);
    said = host_read(hosts.bob, 3 * MIB / SECTOR - 8, 16);
    expect_eq(said.length, 16 * SECTOR);
    for (unsigned i = 0; i < said.length; i++)
        expect_eq(said.data[i], i < 8 * SECTOR ? 0 : 7);
    hosts_close(&hosts);
}
