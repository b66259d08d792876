#include "tests/support/moment.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char shared[] = "/tmp/replicad-moment-XXXXXX";

struct moment *moment_open(void)
{
    struct moment *moment;
    int fd = mkstemp(shared);

    cr_assert(fd >= 0 && ftruncate(fd, sizeof *moment) == 0, "no file for the moment");
    moment = mmap(NULL, sizeof *moment, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert(moment != MAP_FAILED, "no memory for the moment");
    close(fd);
    setenv("REPLICAD_MOMENT", shared, 1);
    setenv("LD_PRELOAD", MOMENT_LIBRARY, 1);
    return moment;
}

void moment_close(struct moment *moment)
{
    unsetenv("LD_PRELOAD");
    unsetenv("REPLICAD_MOMENT");
    (void)moment_disarm(moment);
    munmap(moment, sizeof *moment);
    (void)unlink(shared);
}

void moment_arm(struct moment *moment, unsigned at, int error, const char *only)
{
    atomic_store(&moment->at, 0);
    atomic_store(&moment->met, 0);
    atomic_store(&moment->error, error);
    atomic_store(&moment->after_wal, false);
    atomic_store(&moment->struck, false);
    snprintf(moment->only, sizeof moment->only, "%s", only ? only : "");
    moment->words[0] = '\0';
    atomic_store(&moment->at, at);
}

bool moment_disarm(struct moment *moment)
{
    atomic_store(&moment->at, 0);
    return atomic_load(&moment->struck);
}
