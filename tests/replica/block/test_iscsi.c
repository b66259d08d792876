/* The iscsi driver against a real tgtd: what it says of a LUN, its data, what it
 * does not open. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/replica/block/iscsi_world.h"
#include "tests/support/port.h"

/* -- what it is ----------------------------------------------------------------------- */

Test(iscsi_open, a_thick_lun_tells_what_it_is)
{
    struct world world = world_make(NULL);
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct device_opening opening;
    struct block_device *device = device_open(world.loop, &spec, &opening);
    char place[128];

    cr_assert(device, "%s", opening.fault.why);
    cr_assert_eq(device->size, SIZE);
    cr_assert_eq(device->block_size, 512);
    cr_assert_eq(device->max_transfer, RIG_MIB);
    cr_assert(device->caps & BLOCK_VOLATILE);
    cr_assert(!(device->caps &
            (BLOCK_THIN | BLOCK_CAN_ZERO | BLOCK_CAN_DISCARD | BLOCK_DISCARD_ZEROES |
                    BLOCK_READ_ONLY)));
    cr_assert(device->caps & BLOCK_MAY_ZERO);
    cr_assert(device->max_zero > 0 && device->max_zero <= 16 * RIG_MIB);
    snprintf(
            place, sizeof(place), "lun:127.0.0.1:%u," RIG_TARGET ",1", world.tgt->port);
    cr_assert_str_eq(opening.identity.place, place);
    cr_assert_str_eq(opening.identity.world, "", "tgt's numbers are no identity");
    cr_assert(strstr(opening.identity.weak, "sn"), "%s", opening.identity.weak);
    cr_assert(!opening.identity.foreign_reservation);
    cr_assert(device_close(&device));
    world_end(&world);
}

Test(iscsi_open, a_thin_lun_of_4096_byte_blocks_tells_what_it_can)
{
    struct world world =
            world_make(&(struct tgt_lun){ .block_size = 4096, .thin = true });
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct block_device *device = rig_open(world.loop, &spec);
    unsigned wanted = BLOCK_THIN | BLOCK_CAN_ZERO | BLOCK_CAN_DISCARD |
            BLOCK_DISCARD_ZEROES | BLOCK_CAN_EXTENTS | BLOCK_VOLATILE;

    cr_assert_eq(device->block_size, 4096);
    cr_assert((device->caps & wanted) == wanted, "%x", device->caps);
    cr_assert(!(device->caps & BLOCK_MAY_ZERO));
    cr_assert(device->max_zero > 0 && device->max_zero % 4096 == 0);
    cr_assert(device_close(&device));
    world_end(&world);
}

static bool has_ipv6(void)
{
    struct sockaddr_in6 address = { .sin6_family = AF_INET6,
        .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool has = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;

    if (fd >= 0)
        close(fd);
    return has;
}

Test(iscsi_open, ipv6)
{
    if (!has_ipv6())
        cr_skip_test("no IPv6 on this machine");
    struct world world = world_make(NULL);
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct block_device *device;
    uint8_t bytes[4096];
    char portal[BLOCK_PORTAL_TEXT];

    snprintf(portal, sizeof(portal), "[::1]:%u", world.tgt->port);
    cr_assert(portal_parse(portal, 0, false, &spec.portal, NULL) == 0);
    device = rig_open(world.loop, &spec);
    cr_assert(device_read(device, 0, bytes, sizeof(bytes)) == 0);
    cr_assert(device_close(&device));
    world_end(&world);
}

/* -- data ------------------------------------------------------------------------------ */

/** @parts pieces of odd lengths, one of them empty, that sum to @length. */
static void iov_cut(
        uint64_t *seed, struct iovec *iov, int parts, uint8_t *bytes, uint64_t length)
{
    for (int i = 0; i < parts; i++) {
        uint64_t n = i == parts - 1 ? length : seed_below(seed, length / 2);
        if (i == 1 && parts > 2)
            n = 0;
        iov[i] = (struct iovec){ bytes, n };
        bytes += n;
        length -= n;
    }
}

static void data_comes_back(uint32_t block_size)
{
    struct world world = world_make(&(struct tgt_lun){ .block_size = block_size });
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct block_device *device = rig_open(world.loop, &spec);
    uint8_t *model = calloc(1, SIZE), *bytes = malloc(2 * RIG_MIB),
            *seen = malloc(SIZE);
    uint64_t seed = seed_take("iscsi data");

    for (int i = 0; i < 60; i++) {
        uint64_t length = block_size * (1 + seed_below(&seed, RIG_MIB / block_size));
        uint64_t offset =
                block_size * seed_below(&seed, (SIZE - length) / block_size + 1);
        struct iovec iov[21];
        struct device_call call = { .request = { .offset = offset,
                                            .length = length,
                                            .iov = iov,
                                            .iovcnt =
                                                    1 + (int)seed_below(&seed, 20) } };
        iov_cut(&seed, iov, call.request.iovcnt, bytes, length);
        if (i % 2 == 0) {
            call.request.op = BLOCK_WRITE;
            call.request.flags = seed_below(&seed, 4) == 0 ? BLOCK_FUA : 0;
            seed_fill(&seed, bytes, length);
            memcpy(model + offset, bytes, length);
        } else {
            call.request.op = BLOCK_READ;
            memset(bytes, 0x5a, length);
        }
        cr_assert_eq(device_call_run(device, &call), 0, "%s", block_last_words(device));
        cr_assert(memcmp(bytes, model + offset, length) == 0, "step %d", i);
    }
    cr_assert_eq(device_flush(device), 0);
    cr_assert_eq(pread(world.fd, seen, SIZE, 0), SIZE);
    cr_assert(memcmp(seen, model, SIZE) == 0, "the far side has other bytes");
    cr_assert(device_close(&device));
    free(model);
    free(bytes);
    free(seen);
    world_end(&world);
}

Test(iscsi_data, comes_back_from_any_vector_512)
{
    data_comes_back(512);
}

Test(iscsi_data, comes_back_from_any_vector_4096)
{
    data_comes_back(4096);
}

Test(iscsi_data, more_requests_than_slots)
{
    struct world world = world_make(NULL);
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct block_device *device = rig_open(world.loop, &spec);
    static struct rig_batch writes, reads;
    uint8_t *bytes = malloc(RIG_CALLS * 64 * RIG_KIB),
            *back = calloc(RIG_CALLS, 64 * RIG_KIB);
    uint64_t seed = seed_take("slots");

    seed_fill(&seed, bytes, RIG_CALLS * 64 * RIG_KIB);
    for (uint64_t i = 0; i < RIG_CALLS; i++)
        rig_start(&writes, device, BLOCK_WRITE, i * 64 * RIG_KIB,
                bytes + i * 64 * RIG_KIB, 64 * RIG_KIB);
    rig_finish(&writes, world.loop);
    cr_assert_eq(rig_count(&writes, 0), RIG_CALLS);
    for (uint64_t i = 0; i < RIG_CALLS; i++)
        rig_start(&reads, device, BLOCK_READ, i * 64 * RIG_KIB, back + i * 64 * RIG_KIB,
                64 * RIG_KIB);
    rig_finish(&reads, world.loop);
    cr_assert_eq(rig_count(&reads, 0), RIG_CALLS);
    cr_assert(memcmp(bytes, back, RIG_CALLS * 64 * RIG_KIB) == 0);
    cr_assert(device_close(&device));
    free(bytes);
    free(back);
    world_end(&world);
}

static unsigned extents_of(struct block_device *device, uint64_t offset,
        uint64_t length, struct block_extent *extents, unsigned room)
{
    struct device_call call = { .request = { .op = BLOCK_EXTENTS,
                                        .offset = offset,
                                        .length = length,
                                        .extents = extents,
                                        .extents_max = room } };

    cr_assert_eq(device_call_run(device, &call), 0, "%s", block_last_words(device));
    return call.request.extents_count;
}

/* No block of it was ever promised to be zero: what is zeroed there is garbage before. */
Test(iscsi_data, zeros_that_a_thick_lun_makes)
{
    struct world world = world_make(NULL);
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct block_device *device = rig_open(world.loop, &spec);
    uint8_t *bytes = malloc(SIZE);

    memset(bytes, 7, SIZE);
    cr_assert_eq(pwrite(world.fd, bytes, SIZE, 0), SIZE);
    cr_assert_eq(device_do(device, BLOCK_ZERO, RIG_MIB, NULL, 2 * RIG_MIB, 0), 0);
    cr_assert_eq(device_do(device, BLOCK_ZERO, 5 * RIG_MIB + 512, NULL, 512, 0), 0);
    for (uint64_t at = 0; at < SIZE; at += RIG_MIB)
        cr_assert_eq(device_read(device, at, bytes + at, RIG_MIB), 0);
    for (int i = 0; i < SIZE; i++) {
        bool zero = (i >= RIG_MIB && i < 3 * RIG_MIB) ||
                (i >= 5 * RIG_MIB + 512 && i < 5 * RIG_MIB + 1024);
        cr_assert_eq(bytes[i], zero ? 0 : 7, "at %d", i);
    }
    free(bytes);
    cr_assert(device_close(&device));
    world_end(&world);
}

Test(iscsi_data, zeros_discards_and_extents_of_a_thin_lun)
{
    struct world world = world_make(&(struct tgt_lun){ .thin = true });
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct block_device *device = rig_open(world.loop, &spec);
    uint8_t *bytes = malloc(SIZE);
    struct block_extent extents[8];
    struct stat before, after;

    memset(bytes, 7, SIZE);
    cr_assert_eq(pwrite(world.fd, bytes, SIZE, 0), SIZE);
    cr_assert(fstat(world.fd, &before) == 0);
    cr_assert_eq(device_do(device, BLOCK_ZERO, RIG_MIB, NULL, RIG_MIB, BLOCK_FUA), 0);
    cr_assert_eq(device_do(device, BLOCK_DISCARD, 4 * RIG_MIB, NULL, 512, 0), 0);
    cr_assert_eq(device_do(device, BLOCK_DISCARD, 5 * RIG_MIB, NULL, RIG_MIB, 0), 0);
    for (uint64_t at = 0; at < SIZE; at += RIG_MIB)
        cr_assert_eq(device_read(device, at, bytes + at, RIG_MIB), 0);
    for (int i = 0; i < SIZE; i++) {
        bool zero = (i >= RIG_MIB && i < 2 * RIG_MIB) ||
                (i >= 4 * RIG_MIB && i < 4 * RIG_MIB + 512) ||
                (i >= 5 * RIG_MIB && i < 6 * RIG_MIB);
        cr_assert_eq(bytes[i], zero ? 0 : 7, "at %d", i);
    }
    cr_assert(fstat(world.fd, &after) == 0);
    cr_assert(after.st_blocks < before.st_blocks, "nothing was given back");

    cr_assert_eq(extents_of(device, 0, 2 * RIG_MIB + 512, extents, 8), 3);
    cr_assert(extents[0].kind == BLOCK_EXTENT_DATA && extents[0].length == RIG_MIB);
    cr_assert(extents[1].kind == BLOCK_EXTENT_ZERO && extents[1].length == RIG_MIB);
    cr_assert(extents[2].kind == BLOCK_EXTENT_DATA && extents[2].length == 512);
    cr_assert(extents_of(device, 5 * RIG_MIB + 4096, RIG_MIB, extents, 1) == 1);
    cr_assert(extents[0].kind == BLOCK_EXTENT_ZERO);
    cr_assert_eq(extents[0].length, RIG_MIB - 4096);
    cr_assert(device_close(&device));
    free(bytes);
    world_end(&world);
}

Test(iscsi_data, many_extent_requests_share_one_buffer)
{
    struct world world = world_make(&(struct tgt_lun){ .thin = true });
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct block_device *device = rig_open(world.loop, &spec);
    static struct rig_batch batch;
    static struct block_extent extents[8][4];
    uint8_t bytes[4096];

    memset(bytes, 1, sizeof(bytes));
    for (int i = 0; i < 8; i++)
        cr_assert_eq(pwrite(world.fd, bytes, 4096, i * RIG_MIB), 4096);
    for (uint64_t i = 0; i < 8; i++) {
        struct rig_call *call = &batch.calls[batch.started++];
        *call = (struct rig_call){ .batch = &batch };
        call->request = (struct block_request){ .op = BLOCK_EXTENTS,
            .offset = i * RIG_MIB,
            .length = RIG_MIB,
            .extents = extents[i],
            .extents_max = 4,
            .done = rig_call_done };
        block_submit(device, &call->request);
        rig_start(&batch, device, BLOCK_READ, i * RIG_MIB, bytes, 512);
    }
    rig_finish(&batch, world.loop);
    cr_assert_eq(rig_count(&batch, 0), 16);
    for (uint64_t i = 0; i < 8; i++) {
        cr_assert_eq(batch.calls[2 * i].request.extents_count, 2);
        cr_assert(extents[i][0].offset == i * RIG_MIB && extents[i][0].length == 4096);
        cr_assert(extents[i][1].kind == BLOCK_EXTENT_ZERO);
    }
    cr_assert(device_close(&device));
    world_end(&world);
}

/* -- what does not open --------------------------------------------------------------- */

Test(iscsi_refused, what_is_not_there)
{
    struct world world = world_make(NULL);
    struct block_spec spec = rig_spec(world.tgt->port, 1), wrong = spec;
    uint16_t port;
    int kept = port_keep(&port);

    cr_assert(kept >= 0);
    wrong = rig_spec(port, 1);
    cr_assert_eq(rig_refused(world.loop, &wrong), -ECONNREFUSED);
    close(kept);
    wrong = spec;
    strcpy(wrong.target, "iqn.2026-11.test:b");
    cr_assert_eq(rig_refused(world.loop, &wrong), -ENODEV);
    wrong = spec;
    wrong.lun = 2;
    cr_assert_eq(rig_refused(world.loop, &wrong), -ENXIO);
    wrong.lun = 300;
    cr_assert_eq(rig_refused(world.loop, &wrong), -ENXIO);
    wrong.lun = 0; /* tgt's controller */
    cr_assert_eq(rig_refused(world.loop, &wrong), -EINVAL);
    wrong = spec;
    wrong.expect_size = SIZE - 512;
    cr_assert_eq(rig_refused(world.loop, &wrong), -ESTALE);
    wrong = spec;
    strcpy(wrong.expect_world, "naa.6001405000000000");
    cr_assert_eq(rig_refused(world.loop, &wrong), -ESTALE);
    wrong = spec;
    wrong.initiator[0] = '\0';
    cr_assert_eq(rig_refused(world.loop, &wrong), -EINVAL);
    world_end(&world);
}

Test(iscsi_refused, a_lun_that_is_write_protected_opens_for_reading)
{
    struct world world = world_make(&(struct tgt_lun){ .read_only = true });
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct block_device *device;
    uint8_t bytes[512];

    cr_assert_eq(rig_refused(world.loop, &spec), -EROFS);
    spec.writable = false;
    device = rig_open(world.loop, &spec);
    cr_assert(device->caps & BLOCK_READ_ONLY);
    cr_assert_eq(device_read(device, 512, bytes, 512), 0);
    cr_assert_eq(device_write(device, 512, bytes, 512), -EROFS);
    cr_assert(device_close(&device));
    world_end(&world);
}

Test(iscsi_refused, chap_one_way)
{
    struct world world = world_make(NULL);
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct block_chap chap = { .user = "rita", .secret = "a long secret 1" };
    struct block_device *device;

    tgt_add_account(world.tgt, 1, "rita", "a long secret 1", false);
    cr_assert_eq(rig_refused(world.loop, &spec), -EACCES, "no secret");
    spec.chap = &chap;
    strcpy(chap.secret, "a wrong secret 1");
    cr_assert_eq(rig_refused(world.loop, &spec), -EACCES, "the wrong secret");
    strcpy(chap.secret, "a long secret 1");
    strcpy(chap.user, "rosa");
    cr_assert_eq(rig_refused(world.loop, &spec), -EACCES, "the wrong user");
    strcpy(chap.user, "rita");
    device = rig_open(world.loop, &spec);
    cr_assert(device_close(&device));
    world_end(&world);
}

Test(iscsi_refused, chap_both_ways)
{
    struct world world = world_make(NULL);
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct block_chap chap = { .user = "rita",
        .secret = "a long secret 1",
        .mutual_user = "tina",
        .mutual_secret = "another secret 2" };
    struct block_device *device;

    spec.chap = &chap;
    tgt_add_account(world.tgt, 1, "rita", "a long secret 1", false);
    tgt_add_account(world.tgt, 1, "tina", "another secret 2", true);
    device = rig_open(world.loop, &spec);
    cr_assert(device_close(&device));
    strcpy(chap.mutual_secret, "a wrong secret 2");
    cr_assert_eq(rig_refused(world.loop, &spec), -EACCES);
    world_end(&world);
}

Test(iscsi_refused, without_a_descriptor_to_spare)
{
    struct world world = world_make(NULL);
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct block_device *device =
            rig_open(world.loop, &spec); /* what it needs once, is there */
    struct rlimit before, none;
    int next = dup(0);

    close(next);
    cr_assert(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = before;
    none.rlim_cur = (rlim_t)next;
    cr_assert(setrlimit(RLIMIT_NOFILE, &none) == 0);
    spec.isid++;
    cr_assert_eq(rig_refused(world.loop, &spec), -EMFILE);
    cr_assert(setrlimit(RLIMIT_NOFILE, &before) == 0);
    cr_assert(device_close(&device));
    world_end(&world);
}

/** What the driver sent before it gave up: ours to read, with the way it ended. */
static void login_read(int listener, uint8_t header[48], int *end)
{
    int fd = accept(listener, NULL, NULL);
    uint8_t rest[4096];
    ssize_t n;

    cr_assert(recv(fd, header, 48, MSG_WAITALL) == 48);
    while ((n = recv(fd, rest, sizeof(rest), 0)) > 0)
        ;
    *end = n < 0 ? errno : 0;
    close(fd);
}

Test(iscsi_refused, a_portal_that_accepts_and_never_answers)
{
    static const uint8_t isid[6] = { 0x80, 0x12, 0x34, 0x56, 0x9a, 0xbc };
    struct loop *loop = rig_loop();
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), end;
    struct block_spec spec;
    uint8_t header[48];

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert(bind(listener, (struct sockaddr *)&address, size) == 0);
    cr_assert(listen(listener, 4) == 0);
    cr_assert(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    spec = rig_spec(ntohs(address.sin_port), 1);
    spec.connect_timeout_ms = 3000; /* the login is sent within, on any machine */
    spec.isid = 0x801234569abc;
    cr_assert_eq(rig_refused(loop, &spec), -ETIMEDOUT);
    login_read(listener, header, &end);
    cr_assert_eq(header[0] & 0x3f, 0x03);
    cr_assert(memcmp(header + 8, isid, 6) == 0, "the ISID is not the one asked for");
    cr_assert_eq(end, ECONNRESET, "what is queued could still be delivered");
    close(listener);
    loop_destroy(loop);
}

/** A stranger with libiscsi's own calls, who registers a key and reserves the LUN. */
static struct iscsi_context *stranger_reserves(const struct world *world, int type)
{
    struct iscsi_context *stranger = iscsi_create_context("iqn.2026-11.test:stranger");
    struct scsi_persistent_reserve_out_basic key = { .service_action_reservation_key =
                                                             77 };
    char portal[32];

    snprintf(portal, sizeof(portal), "127.0.0.1:%u", world->tgt->port);
    iscsi_set_targetname(stranger, RIG_TARGET);
    iscsi_set_session_type(stranger, ISCSI_SESSION_NORMAL);
    cr_assert(iscsi_full_connect_sync(stranger, portal, 1) == 0, "%s",
            iscsi_get_error(stranger));
    for (int action = SCSI_PERSISTENT_RESERVE_REGISTER;
            action <= SCSI_PERSISTENT_RESERVE_RESERVE; action++) {
        struct scsi_task *task = iscsi_persistent_reserve_out_sync(
                stranger, 1, action, SCSI_PERSISTENT_RESERVE_SCOPE_LU, type, &key);
        cr_assert(task && task->status == SCSI_STATUS_GOOD);
        scsi_free_scsi_task(task);
        key = (struct scsi_persistent_reserve_out_basic){ .reservation_key = 77 };
    }
    return stranger;
}

Test(iscsi_refused, a_reservation_of_a_stranger_is_told_and_felt)
{
    struct world world = world_make(NULL);
    struct block_spec spec = rig_spec(world.tgt->port, 1);
    struct iscsi_context *stranger = stranger_reserves(
            &world, SCSI_PERSISTENT_RESERVE_TYPE_WRITE_EXCLUSIVE_REGISTRANTS_ONLY);
    struct device_opening opening;
    struct block_device *device = device_open(world.loop, &spec, &opening);
    uint8_t bytes[512] = { 1 };

    cr_assert(device && opening.identity.foreign_reservation);
    cr_assert_eq(device_read(device, 0, bytes, 512), 0);
    cr_assert_eq(device_write(device, 0, bytes, 512), -EBADE);
    cr_assert(strstr(block_last_words(device), "RESERVATION CONFLICT"));
    cr_assert(device_close(&device));
    spec.writable = false;
    device = device_open(world.loop, &spec, &opening);
    cr_assert(device && !opening.identity.foreign_reservation,
            "a reader is not kept out");
    cr_assert(device_close(&device));
    iscsi_destroy_context(stranger);
    world_end(&world);
}

Test(iscsi_open, handles_come_and_go_without_a_trace)
{
    struct world world = world_make(NULL);
    struct block_spec spec = rig_spec(world.tgt->port, 1);

    for (int i = 0; i < 30; i++) {
        struct block_device *device = rig_open(world.loop, &spec);
        cr_assert(device_close(&device));
    }
    world_end(&world);
}
