/* server/iscsi/hall.h - what a loop has of the target. */
#ifndef SERVER_ISCSI_HALL_H
#define SERVER_ISCSI_HALL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replica/base/clock.h"
#include "replica/loop/loop.h"

struct buffer_pool;
struct connection;
struct iscsi_target;

enum {
    TICK_MS = 250 /* how often deadlines are looked at */
};

struct hall {
    struct iscsi_target *target;
    struct loop *loop;
    struct buffer_pool *buffers;
    struct connection *connections;
    struct loop_timer tick;
    struct loop_task stop;
    unsigned endings; /* exports that are ending */
    bool stopping, stopped;
    struct instant patience; /* stopping: connections are dropped then */
    _Atomic uint64_t commands, read_bytes, written_bytes;
};

bool hall_start(struct hall *hall, struct iscsi_target *target, struct loop *loop,
        size_t buffer_bytes);
void hall_finish(struct hall *hall);

void hall_tick_start(struct hall *hall);
void hall_connection_gone(struct hall *hall);

#endif
