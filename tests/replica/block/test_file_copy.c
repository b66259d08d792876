/* The file driver: from file to file, by the kernel itself. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/replica/block/file_rig.h"
#include "tests/support/expect.h"

enum { COPIED = 4 * FILE_SIZE };

static uint8_t there[COPIED], here[COPIED];

static struct block_device *open_filled(const char *name, uint8_t *content)
{
    struct block_device *device;

    file_make(name, COPIED);
    device = file_open_as(name, true, 512, 0);
    expect(device);
    expect_eq(device_write(device, 0, content, COPIED), 0);
    return device;
}

static int copy_all(struct block_device *to, struct block_device *from)
{
    struct device_call call = { .request = { .op = BLOCK_COPY,
                                        .length = COPIED,
                                        .from = from,
                                        .done = device_call_done } };

    block_submit(to, &call.request);
    expect(!call.done);
    expect(drive_until(file_rig.loop, &call.done));
    return call.result;
}

Test(file, in_memory_the_kernel_copies_what_is_not_zero)
{
    struct block_device *from, *to;

    file_rig.at_once = true;
    file_set();
    for (unsigned i = 0; i < COPIED; i++)
        there[i] = (uint8_t)(i % 251 + 1);
    from = open_filled("from", there);
    to = open_filled("to", here);
    expect(block_can_copy(to, from));

    expect_eq(copy_all(to, from), 0);
    expect_eq(device_read(to, 0, here, COPIED), 0);
    expect(memcmp(here, there, COPIED) == 0);

    memset(there + COPIED - FILE_SIZE, 0, FILE_SIZE); /* the last run, and no other */
    expect_eq(device_write(from, 0, there, COPIED), 0);
    expect_eq(copy_all(to, from), -ENODATA);
    expect(device_close(&from));
    expect(device_close(&to));
    file_strike();
}

static void shorten_file(const char *name)
{
    char path[300];

    file_path(name, path, sizeof path);
    expect_eq(truncate(path, FILE_SIZE), 0);
}

Test(file, the_kernel_copies_neither_from_nor_to_beyond_a_new_end)
{
    struct block_device *from, *to;
    struct stat status;
    char path[300];

    file_rig.at_once = true;
    file_set();
    memset(there, 1, sizeof there);
    from = open_filled("from", there);
    to = open_filled("to", here);
    shorten_file("to");
    expect_eq(copy_all(to, from), -ESTALE);
    file_path("to", path, sizeof path);
    expect_eq(stat(path, &status), 0);
    expect_eq(status.st_size, FILE_SIZE);
    shorten_file("from"); /* what is not there may be zeros: to be looked at */
    expect(copy_all(to, from) < 0);
    expect(device_close(&from));
    expect(device_close(&to));
    file_strike();
}

Test(file, files_on_disks_are_read_and_written)
{
    struct block_device *from, *to;

    file_set(); /* as if on a disk */
    from = open_filled("from", there);
    to = open_filled("to", here);
    expect(!block_can_copy(to, from));
    expect(device_close(&from));
    expect(device_close(&to));
    file_strike();
}
