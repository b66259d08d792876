#include "tests/server/iscsi/login_rig.h"

#include <string.h>

static enum login_access rig_access(void *context, const char *initiator,
        const char *target, struct login_chap *chap)
{
    struct login_rig *rig = context;

    rig->accesses++;
    strcpy(rig->asked_initiator, initiator);
    strcpy(rig->asked_target, target);
    if (rig->access == LOGIN_WITH_CHAP)
        *chap = rig->chap;
    return rig->access;
}

static bool rig_user(
        void *context, const char *initiator, const char *user, struct login_chap *chap)
{
    struct login_rig *rig = context;

    (void)initiator;
    rig->users++;
    if (strcmp(user, rig->chap.user) != 0)
        return false;
    *chap = rig->chap;
    return true;
}

static bool rig_throttled(void *context, const char *initiator)
{
    (void)initiator;
    return ((struct login_rig *)context)->throttled;
}

static void rig_failed(void *context, const char *initiator)
{
    (void)initiator;
    ((struct login_rig *)context)->failures++;
}

static void rig_random(uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = length == 1 ? 0x27 : (uint8_t)(i + 1);
}

void rig_start(struct login_rig *rig, enum login_access access)
{
    memset(rig, 0, sizeof *rig);
    rig->access = access;
    rig->asker = (struct login_asker){ rig, rig_access, rig_user, 7, rig_throttled,
        rig_failed, rig_random };
    strcpy(rig->chap.user, "host");
    strcpy(rig->chap.secret, "open sesame 12345");
    strcpy(rig->chap.mutual_user, "disk");
    strcpy(rig->chap.mutual_secret, "the other way round");
    rig->login = login_create(&rig->asker);
    pdu_start(rig->bhs, PDU_LOGIN, false);
    rig->bhs[0] |= PDU_IMMEDIATE;
    memcpy(rig->bhs + 8, "\x80\x01\x02\x03\x04\x05", 6);
    be32_put(rig->bhs + 16, 0x11223344);
    be16_put(rig->bhs + 20, 5);
    be32_put(rig->bhs + 24, 0xfffffffe);
    be32_put(rig->bhs + 28, 0xffffffff);
}

void rig_stop(struct login_rig *rig)
{
    login_destroy(rig->login);
    rig->login = NULL;
}

enum login_next rig_send_bytes(
        struct login_rig *rig, unsigned flags, const void *bytes, size_t length)
{
    enum login_next next;

    rig->bhs[1] = (uint8_t)flags;
    be24_put(rig->bhs + 5, (uint32_t)length);
    memset(rig->answer, 0xa5, sizeof rig->answer);
    memset(rig->data, 0xa5, sizeof rig->data);
    rig->text[0] = 0;
    next = login_step(rig->login, rig->bhs, bytes, length, 0x1234, rig->answer,
            rig->data, &rig->result);
    if (next == LOGIN_DROP)
        return next;
    for (size_t i = 0; i < pdu_data_length(rig->answer); i++)
        rig->text[i] = rig->data[i] ? (char)rig->data[i] : '|';
    rig->text[pdu_data_length(rig->answer)] = 0;
    return next;
}

enum login_next rig_send(struct login_rig *rig, unsigned flags, const char *text)
{
    static uint8_t bytes[LOGIN_TEXT_MAX];
    size_t length = strlen(text);

    for (size_t i = 0; i < length; i++)
        bytes[i] = text[i] == '|' ? 0 : (uint8_t)text[i];
    return rig_send_bytes(rig, flags, bytes, length);
}

unsigned rig_status(const struct login_rig *rig)
{
    return be16_get(rig->answer + 36);
}
