/* tests/server/iscsi/reserve_rig.h - PERSISTENT RESERVE OUT and IN for three sessions of one
 * unit: 0 holds, 1 is registered, 2 is a stranger.
 */
#ifndef TESTS_SERVER_ISCSI_RESERVE_RIG_H
#define TESTS_SERVER_ISCSI_RESERVE_RIG_H

#include "server/iscsi/pdu.h"
#include "server/iscsi/scsi_inside.h"
#include "tests/server/iscsi/scsi_rig.h"

enum { HOLDER, REGISTRANT, STRANGER, RESERVE_SESSIONS };
enum { REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_ABORT, IGNORE };
enum { RESERVE_TYPES = 6 };

extern const uint64_t reserve_keys[RESERVE_SESSIONS];
extern const uint8_t reserve_types[RESERVE_TYPES];

extern struct rig reserve_rig;
extern uint32_t reserve_sense, reserve_received; /* of the last command */
extern unsigned
        reserve_asker; /* whose PERSISTENT RESERVE IN it is: one without attentions */
extern uint8_t reserve_answer[BUFFER_LARGE]; /* of reserve_in() */

void reserve_make(void);
void reserve_end(void);

/** PERSISTENT RESERVE OUT: the task only, over @list; or the whole. */
void reserve_out_task(struct rig_task *task, uint8_t list[24], unsigned nexus,
        unsigned action, unsigned type, uint64_t key, uint64_t action_key,
        uint8_t flags);
enum scsi_status reserve_out(unsigned nexus, unsigned action, unsigned type,
        uint64_t key, uint64_t action_key);

/** REGISTER of the session's own key. */
enum scsi_status reserve_join(unsigned nexus);

/** PERSISTENT RESERVE IN, which succeeds. */
void reserve_in(unsigned nexus, unsigned action);
uint32_t reserve_generation(void);
unsigned reserve_key_count(void);

/** The type that is held, 0 none; @key as it is told. */
unsigned reserve_held(uint64_t *key);

#endif
