/* tests/support/tgt.h - far sides for tests: a real tgtd of one's own, and a hostile target.
 *
 * Every daemon gets a free port on 127.0.0.1 and ::1, a control socket and a directory of its
 * own, and dies with the test's process. Calls block; what should work and does not, says
 * so on standard error and aborts: a test without its far side shows nothing.
 */
#ifndef TESTS_SUPPORT_TGT_H
#define TESTS_SUPPORT_TGT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct tgt {
    uint16_t port;
    char directory[64]; /* for backing files; removed by tgt_stop() */
    pid_t pid; /* 0: not running */
    int control; /* tgtadm -C */
};

struct tgt_lun {
    const char *path; /* the backing file; its size is the LUN's */
    unsigned block_size; /* bytes; 0: 512 */
    bool thin; /* LBPME, LBPRZ, UNMAP, WRITE SAME with UNMAP */
    bool read_only;
    const char *vendor; /* NULL: tgt's own, whose identities are not trusted */
    const char *scsi_id,
            *scsi_sn; /* NULL: made from port, target and LUN, so that no two
                                      daemons' LUNs look alike */
};

/** Starts tgtd. Owned by the caller, tgt_stop(). */
struct tgt *tgt_start(void);

/** Kills it, removes its directory. NULL is fine. */
void tgt_stop(struct tgt *tgt);

/** SIGKILL, as a crash; its files stay. tgt_revive() starts it on the same port: targets and
    LUNs must be made anew. */
void tgt_kill(struct tgt *tgt);
void tgt_revive(struct tgt *tgt);

/** SIGSTOP, and nothing of it runs any more when the call returns; SIGCONT. */
void tgt_freeze(struct tgt *tgt);
void tgt_thaw(struct tgt *tgt);

/** tgtadm with these arguments (NULL ends them); the exit status, -1 when it did not run. */
int tgt_admin(struct tgt *tgt, const char *const arguments[]);

/** A target open to all initiators. @tid: 1 and up. */
void tgt_add_target(struct tgt *tgt, int tid, const char *name);

/** CHAP: the target asks for @user; with @outgoing it proves itself by it instead. */
void tgt_add_account(
        struct tgt *tgt, int tid, const char *user, const char *secret, bool outgoing);

/** @lun: 1 and up; 0 is tgt's controller. */
void tgt_add_lun(struct tgt *tgt, int tid, int lun, const struct tgt_lun *what);
void tgt_remove_lun(struct tgt *tgt, int tid, int lun);

/** Has the LUN opened anew, after its backing file changed its size or was replaced. */
void tgt_reload_lun(struct tgt *tgt, int tid, int lun, const char *path);

/** A sparse file of @size bytes in the directory; @path receives its name. */
void tgt_make_file(struct tgt *tgt, const char *name, uint64_t size, char path[128]);

/** tests/support/hostile_target.py with these arguments (NULL ends them). */
struct hostile {
    pid_t pid;
    uint16_t port;
};
void hostile_start(struct hostile *hostile, const char *const arguments[]);
void hostile_stop(struct hostile *hostile);

/** A free TCP port of 127.0.0.1, of those that the kernel gives nobody by itself: who lets
    go of it finds it again. */
uint16_t port_free(void);

#endif
