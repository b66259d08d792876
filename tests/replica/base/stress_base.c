/* For ThreadSanitizer: ids, traces and log lines made by many threads at once. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/check.h"
#include "replica/base/trace.h"
#include "replica/base/uuid.h"

enum { THREADS = 4, IDS = 5000 };

static struct uuid ids[THREADS][IDS];

static void *make_ids(void *mine)
{
    struct uuid *list = mine;

    for (unsigned i = 0; i < IDS; i++) {
        list[i] = uuid_make();
        trace("made", i, 0);
        check(i == 0 || strcmp(list[i - 1].text, list[i].text) < 0);
    }
    return NULL;
}

static int compare(const void *a, const void *b)
{
    return strcmp(((const struct uuid *)a)->text, ((const struct uuid *)b)->text);
}

int main(void)
{
    pthread_t threads[THREADS];
    int nowhere = open("/dev/null", O_WRONLY);

    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < THREADS; i++)
            check(pthread_create(&threads[i], NULL, make_ids, ids[i]) == 0);
        trace_print(nowhere); /* while they write */
        for (unsigned i = 0; i < THREADS; i++)
            check(pthread_join(threads[i], NULL) == 0);
        qsort(ids, THREADS * IDS, sizeof(struct uuid), compare);
        for (unsigned i = 1; i < THREADS * IDS; i++)
            check(!uuid_equal(&ids[0][0] + i - 1, &ids[0][0] + i));
    }
    puts("ids are unique");
    return 0;
}
