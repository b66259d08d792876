/* LUNs of a real tgtd: the iscsi driver's rows of the contract suite. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replica/base/check.h"
#include "replica/block/address.h"
#include "tests/replica/block/fixture.h"
#include "tests/support/device.h"
#include "tests/support/tgt.h"

#define TARGET "iqn.2026-11.test:contract"

struct lun_store {
    struct tgt *tgt;
    int fd; /* the oracle's own: tgtd writes through the same page cache */
};

static const char *lun_missing(void)
{
    static const char *const places[] = { "/usr/sbin/tgtd", "/usr/bin/tgtd",
        "/sbin/tgtd" };

    for (unsigned i = 0; i < 3; i++)
        if (access(places[i], X_OK) == 0)
            return NULL;
    return "no tgtd";
}

static bool lun_make_with(struct fixture_store *store, const uint8_t *bytes, bool thin)
{
    struct lun_store *own = calloc(1, sizeof *own);
    struct tgt_lun lun = { .block_size = store->block_size, .thin = thin };
    static const uint8_t zeros[4096];
    char path[128];

    check(own);
    store->own = own;
    own->tgt = tgt_start();
    tgt_make_file(own->tgt, "disk", store->size, path);
    own->fd = open(path, O_RDWR | O_CLOEXEC);
    for (uint64_t at = 0; at < store->size; at += 4096) { /* holes stay holes */
        uint64_t n = store->size - at < 4096 ? store->size - at : 4096;
        if (memcmp(bytes + at, zeros, n) != 0 &&
                pwrite(own->fd, bytes + at, n, (off_t)at) != (ssize_t)n)
            return false;
    }
    lun.path = path;
    tgt_add_target(own->tgt, 1, TARGET);
    tgt_add_lun(own->tgt, 1, 1, &lun);
    return true;
}

static bool lun_make_thin(struct fixture_store *store, const uint8_t *bytes)
{
    return lun_make_with(store, bytes, true);
}

static bool lun_make_thick(struct fixture_store *store, const uint8_t *bytes)
{
    return lun_make_with(store, bytes, false);
}

static struct block_device *lun_open(
        struct fixture_store *store, struct loop *loop, bool writable)
{
    static uint64_t qualifier; /* every live handle has an ISID of its own */
    struct lun_store *own = store->own;
    struct block_spec spec = { .driver = BLOCK_DRIVER_iscsi,
        .writable = writable,
        .expect_size = store->size,
        .target = TARGET,
        .lun = 1,
        .initiator = "iqn.2026-11.org.replicad:contract",
        .isid = 0x800000000000 | ++qualifier,
        /* far beyond what a loaded machine needs */
        .connect_timeout_ms = 30000,
        .io_timeout_ms = 60000 };
    struct device_opening opening;
    struct block_device *device;
    char portal[BLOCK_PORTAL_TEXT];

    snprintf(portal, sizeof(portal), "127.0.0.1:%u", own->tgt->port);
    check(portal_parse(portal, 0, false, &spec.portal, NULL) == 0);
    device = device_open(loop, &spec, &opening);
    if (!device)
        fprintf(stderr, "%s\n", opening.fault.why);
    return device;
}

static void lun_peek(
        struct fixture_store *store, uint64_t offset, void *to, uint64_t length)
{
    struct lun_store *own = store->own;

    check(pread(own->fd, to, length, (off_t)offset) == (ssize_t)length);
}

static void lun_destroy(struct fixture_store *store)
{
    struct lun_store *own = store->own;

    (void)close(own->fd);
    tgt_stop(own->tgt);
    free(own);
}

#define LUN_ROW(...)                                                                   \
    .missing = lun_missing, .open = lun_open, .peek = lun_peek,                        \
    .destroy = lun_destroy, __VA_ARGS__

const struct fixture fixture_iscsi_512 = { LUN_ROW(.name = "iscsi-512-thin",
        .block_size = 512, .make = lun_make_thin) };
const struct fixture fixture_iscsi_4096 = { LUN_ROW(.name = "iscsi-4096-thick",
        .block_size = 4096, .make = lun_make_thick) };
const struct fixture fixture_iscsi_512_thick = { LUN_ROW(.name = "iscsi-512-thick",
        .block_size = 512, .make = lun_make_thick) };
const struct fixture fixture_iscsi_4096_thin = { LUN_ROW(.name = "iscsi-4096-thin",
        .block_size = 4096, .make = lun_make_thin) };
