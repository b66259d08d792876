/* tests/fuzz/replay.c - a fuzzer's saved inputs, each once, with whatever compiler. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "replica/base/scope.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/** Feeds one file, in memory of just its size: an overrun is the sanitizer's to see. */
static int file_replay(const char *folder, const char *name)
{
    char path[4096];
    scoped_free uint8_t *bytes = NULL;
    FILE *file;
    long length;

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!(file = fopen(path, "rb")))
        return -1;
    if (fseek(file, 0, SEEK_END) != 0 || (length = ftell(file)) < 0 ||
            fseek(file, 0, SEEK_SET) != 0 ||
            !(bytes = malloc(length > 0 ? (size_t)length : 1)) ||
            fread(bytes, 1, (size_t)length, file) != (size_t)length) {
        (void)fclose(file);
        return -1;
    }
    (void)fclose(file);
    return LLVMFuzzerTestOneInput(bytes, (size_t)length);
}

int main(int argc, char **argv)
{
    DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;
    struct dirent *entry;
    unsigned count = 0, bad = 0;

    if (!folder) {
        fprintf(stderr, "usage: %s CORPUS\n", argv[0]);
        return 2;
    }
    while ((entry = readdir(folder))) {
        if (entry->d_name[0] == '.')
            continue;
        count++;
        if (file_replay(argv[1], entry->d_name) != 0) {
            fprintf(stderr, "%s failed\n", entry->d_name);
            bad++;
        }
    }
    (void)closedir(folder);
    printf("%u inputs, %u failed\n", count, bad);
    return count == 0 || bad > 0;
}
