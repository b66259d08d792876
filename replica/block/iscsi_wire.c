/* The commands of one connection, and the lists that they stand in. */
#include <string.h>

#include "replica/base/check.h"
#include "replica/block/iscsi_wire_inside.h"

static const uint32_t COMMAND_TAG = 0x80000000; /* in the tags of commands alone */

/* -- lists ---------------------------------------------------------------------------- */

static void list_init(struct wire_list *list)
{
    list->first = NULL;
    list->end = &list->first;
}

void wire_list_add(struct wire_list *list, struct initiator_command *command)
{
    command->next = NULL;
    *list->end = command;
    list->end = &command->next;
}

struct initiator_command *wire_list_take(struct wire_list *list)
{
    struct initiator_command *command = list->first;

    if (!command)
        return NULL;
    list->first = command->next;
    if (!list->first)
        list->end = &list->first;
    command->next = NULL;
    return command;
}

static void list_remove(struct wire_list *list, struct initiator_command *command)
{
    struct initiator_command **at = &list->first;

    while (*at && *at != command)
        at = &(*at)->next;
    if (!*at)
        return;
    *at = command->next;
    if (!*at)
        list->end = at;
    command->next = NULL;
}

/* -- commands ------------------------------------------------------------------------- */

void wire_begin(
        struct wire *wire, int fd, unsigned lun, const struct login_terms *terms)
{
    wire->fd = fd;
    wire->lun = lun;
    wire->terms = *terms;
    wire->cmd_sn = terms->cmd_sn;
    wire->max_cmd_sn = terms->max_cmd_sn;
    wire->exp_stat_sn = terms->exp_stat_sn;
    wire->lost = wire->blocked = wire->reset_done = wire->logout_done = false;
    list_init(&wire->finished);
    list_init(&wire->starting);
    list_init(&wire->sending);
    list_init(&wire->deferred);
    wire->control_count = wire->elements = wire->element = wire->headers = 0;
    wire->batch = 1;
    wire->batched = 0;
    wire->stage_from = wire->stage_to = 0;
    wire->in_pdu = false;
    wire->outstanding = wire->serial = 0;
    wire->queued = 0;
    wire->heard = UINT64_MAX;
    memset(wire->tasks, 0, sizeof(wire->tasks));
}

void wire_queue(struct wire *wire, struct initiator_command *command)
{
    uint32_t place = 0;

    check(wire->outstanding < WIRE_TASKS && command->iovcnt <= WIRE_PIECES);
    check(command->direction != INITIATOR_OUT || command->length % 4 == 0);
    while (wire->tasks[place])
        place++;
    wire->tasks[place] = command;
    wire->outstanding++;
    wire->serial = (wire->serial + 1) & 0xffff;
    command->order = ++wire->queued;
    command->tag = COMMAND_TAG | wire->serial << 8 | place;
    command->moved = command->allowed = command->data_sn = 0;
    command->cursor = (struct wire_cursor){ 0, 0 };
    command->started = command->answered = false;
    command->queued = true;
    command->batch = 0;
    wire_list_add(&wire->starting, command);
}

struct initiator_command *wire_command_of(struct wire *wire, uint32_t tag)
{
    struct initiator_command *command;

    if ((tag & 0xff) >= WIRE_TASKS)
        return NULL;
    command = wire->tasks[tag & 0xff];
    return command && command->tag == tag && command->started && !command->answered
            ? command
            : NULL;
}

void wire_command_off(struct wire *wire, struct initiator_command *command)
{
    wire->tasks[command->tag & 0xff] = NULL;
    wire->outstanding--;
}

uint64_t wire_heard(struct wire *wire)
{
    uint64_t heard = wire->heard;

    wire->heard = UINT64_MAX;
    return heard;
}

static bool in_batch(const struct wire *wire, const struct initiator_command *command)
{
    return wire->element < wire->elements && command->batch == wire->batch;
}

void wire_command_answered(struct wire *wire, struct initiator_command *command)
{
    if (command->queued)
        list_remove(&wire->sending, command);
    command->queued = false;
    command->answered = true;
    if (in_batch(wire, command)) {
        wire_list_add(&wire->deferred, command);
        return;
    }
    wire_command_off(wire, command);
    wire_list_add(&wire->finished, command);
}

struct initiator_command *wire_take_lost(struct wire *wire)
{
    for (unsigned i = 0; i < WIRE_TASKS; i++) {
        struct initiator_command *command = wire->tasks[i];
        if (!command)
            continue;
        wire_command_off(wire, command);
        command->next = NULL;
        return command;
    }
    return NULL;
}
