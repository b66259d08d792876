/* server/iscsi/grant.h - who may use an export. */
#ifndef SERVER_ISCSI_GRANT_H
#define SERVER_ISCSI_GRANT_H

#include <stdbool.h>
#include <stddef.h>

#include "replica/base/fault.h"
#include "server/iscsi/login.h"
#include "server/iscsi/target.h"

struct export;

/* Who may use an export, and how they show who they are. Constant once made. */
struct grant {
    char (*initiators)[SCSI_NAME_MAX]; /* normalised; "*" all */
    size_t initiator_count;
    bool has_chap;
    struct login_chap chap;
};

/** Judged and copied; owned by the caller, grant_destroy(). 0, -EINVAL, -ENOMEM. */
int grant_make(
        const struct iscsi_export *what, struct grant **grant, struct fault *fault);
void grant_destroy(struct grant *grant); /* NULL is fine */
/** In force from now on, in place of what was; takes @grant. Locked. */
void grant_take(struct export *export, struct grant **grant);

#endif
