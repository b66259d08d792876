/* Who may use an export, and how they show who they are: judged, held ready, put in force.
 *
 * Two steps, because between them somebody else makes the change durable: what can fail is in
 * the first one, which changes nothing; the second one only exchanges what is held ready.
 * Sessions stay as long as their initiator may: that they came with credentials that are old
 * now is no reason to take a disk from a host. Who came with none, because none were asked for,
 * has shown nothing, and goes when some are. */
#include "server/iscsi/grant.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "replica/base/log.h"
#include "server/iscsi/export.h"
#include "server/iscsi/hall.h"
#include "server/iscsi/roster.h"
#include "server/iscsi/target_inside.h"
#include "server/iscsi/text.h"

enum {
    SECRET_MIN = 12
}; /* bytes; RFC 7143 9.2.1 asks for 96 random bits without IPsec */

/* -- judged ---------------------------------------------------------------------------------- */

static int chap_judge(const struct login_chap *chap, struct fault *fault)
{
    if (!chap->user[0])
        return fault_set(fault, -EINVAL, "a CHAP user must have a name");
    if (strlen(chap->secret) < SECRET_MIN)
        return fault_set(fault, -EINVAL, "a secret has at least %d bytes", SECRET_MIN);
    if (!chap->mutual_secret[0])
        return 0;
    if (strlen(chap->mutual_secret) < SECRET_MIN)
        return fault_set(fault, -EINVAL, "a secret has at least %d bytes", SECRET_MIN);
    if (strcmp(chap->secret, chap->mutual_secret) == 0)
        return fault_set(fault, -EINVAL, "the two secrets must differ");
    return 0;
}

/* Names as they are compared, in a block of their own. */
static int names_copy(
        struct grant *grant, const struct iscsi_export *what, struct fault *fault)
{
    size_t count = what->initiator_count;

    grant->initiators = calloc(count + 1, sizeof *grant->initiators);
    if (!grant->initiators)
        return fault_set(fault, -ENOMEM, "out of memory");
    grant->initiator_count = count;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(what->initiators[i], "*") == 0)
            memcpy(grant->initiators[i], "*", 2);
        else if (!text_name(what->initiators[i], grant->initiators[i]))
            return fault_set(
                    fault, -EINVAL, "%.100s is no iSCSI name", what->initiators[i]);
    }
    return 0;
}

void grant_destroy(struct grant *grant)
{
    if (!grant)
        return;
    free(grant->initiators);
    explicit_bzero(&grant->chap, sizeof grant->chap);
    free(grant);
}

int grant_make(
        const struct iscsi_export *what, struct grant **grant, struct fault *fault)
{
    struct grant *made = calloc(1, sizeof *made);
    int result = what->has_chap ? chap_judge(&what->chap, fault) : 0;

    if (!made)
        return fault_set(fault, -ENOMEM, "out of memory");
    if (result == 0)
        result = names_copy(made, what, fault);
    if (result < 0) {
        grant_destroy(made);
        return result;
    }
    made->has_chap = what->has_chap;
    made->chap = what->chap;
    *grant = made;
    return 0;
}

/* -- in force -------------------------------------------------------------------------------- */

static bool same_credentials(const struct grant *a, const struct grant *b)
{
    if (!a || a->has_chap != b->has_chap)
        return false;
    return !a->has_chap ||
            (strcmp(a->chap.user, b->chap.user) == 0 &&
                    strcmp(a->chap.secret, b->chap.secret) == 0 &&
                    strcmp(a->chap.mutual_user, b->chap.mutual_user) == 0 &&
                    strcmp(a->chap.mutual_secret, b->chap.mutual_secret) == 0);
}

void grant_take(struct export *export, struct grant **grant)
{
    if (!same_credentials(export->grant, *grant))
        export->credentials = ++export->target->credentials_made;
    grant_destroy(export->grant);
    export->grant = *grant;
    *grant = NULL;
}

static struct export *serving_find(struct iscsi_target *target, const struct uuid *id)
{
    struct export *export = export_find_id(target, id);
    return export && export->state == EXPORT_SERVING ? export : NULL;
}

int iscsi_target_change(struct iscsi_target *target, const struct iscsi_export *what,
        struct fault *fault)
{
    struct grant *grant = NULL;
    struct export *export;
    int result = grant_make(what, &grant, fault);

    if (result < 0)
        return result;
    pthread_mutex_lock(&target->lock);
    export = serving_find(target, &what->id);
    if (!export) {
        result = fault_set(fault, -ENOENT, "it is not exported");
    } else if (export->read_only != what->read_only ||
            export->hall != &target->halls[what->loop]) {
        result = fault_set(fault, -EBUSY, "it must be withdrawn first");
    } else {
        grant_destroy(export->ready);
        export->ready = grant;
        grant = NULL;
    }
    pthread_mutex_unlock(&target->lock);
    grant_destroy(grant);
    return result;
}

/* Locked. Sessions of those who may not any more, on their way in or out, commands and all. */
static bool has_strangers(struct export *export)
{
    const struct iscsi_target *target = export->target;

    for (unsigned i = 0; i < ROSTER; i++) {
        const struct roster_entry *entry = &target->roster[i];
        if (entry->taken && entry->export == export &&
                !export_keeps(export, entry->initiator, entry->proven))
            return true;
    }
    return false;
}

/* Locked. An export that ends meanwhile ends them as well. */
static int strangers_wait(struct iscsi_target *target, const struct uuid *id,
        uint64_t serial, unsigned ms)
{
    struct timespec deadline = deadline_in(ms);
    struct export *export = export_still(target, id, serial);
    bool waits = true;

    while (export && has_strangers(export) && waits) {
        waits = target_wait(target, &deadline);
        export = export_still(target, id, serial);
    }
    return export && has_strangers(export) ? -ETIMEDOUT : 0;
}

int iscsi_target_settle(
        struct iscsi_target *target, const struct uuid *id, bool kept, unsigned ms)
{
    struct export *export;
    int result = 0;

    pthread_mutex_lock(&target->lock);
    export = serving_find(target, id);
    if (!export || !export->ready) {
        result = -ENOENT;
    } else if (!kept) {
        grant_destroy(export->ready);
        export->ready = NULL;
    } else {
        grant_take(export, &export->ready);
        export_recheck(export);
        result = strangers_wait(target, id, export->serial, ms);
    }
    pthread_mutex_unlock(&target->lock);
    return result;
}
