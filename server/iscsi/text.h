/* server/iscsi/text.h - key=value text, read and written within bounds (RFC 7143 6.1).
 *
 * Pairs end with a NUL each; more NULs between them are nothing. The reader copies nothing: a
 * pair points into what is read, both of its halves checked and the value NUL-terminated.
 * Pure, any thread.
 */
#ifndef SERVER_ISCSI_TEXT_H
#define SERVER_ISCSI_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TEXT_KEY_MAX = 63, /* bytes without a NUL */
    TEXT_VALUE_MAX = 255,
    TEXT_BINARY_MAX = 8192, /* of a value that carries binary: CHAP_C, CHAP_R */
    TEXT_PAIRS_MAX = 64 /* of one text; also login.h's LOGIN_KEYS_MAX */
};

struct text_pair {
    const char *key; /* not terminated: @key_length bytes, then '=' */
    size_t key_length;
    const char *value; /* terminated */
    size_t value_length;
};

/**
 * Reads all of @bytes into @pairs[TEXT_PAIRS_MAX], borrowed from @bytes. Returns how many, or
 * -1: no NUL at the end, no '=', a key that is empty, too long or of other letters than the
 * standard's, a value too long or with control characters, a key twice, too many pairs.
 */
int text_read(const uint8_t *bytes, size_t length, struct text_pair *pairs);

/** True when the key of @pair is @name, letter by letter. */
bool text_is(const struct text_pair *pair, const char *name);

/** Decimal, or hexadecimal after 0x; no sign, no blank, nothing after it, below 2^32. */
bool text_number(const char *value, uint32_t *number);

/** The @index'th member (from 0) of a comma-separated list, not terminated. False: there are
    fewer. */
bool text_member(const char *list, unsigned index, const char **member, size_t *length);

/** Writes into @at[@room]. What does not fit sets @overflow, and nothing is written any more. */
struct text_writer {
    uint8_t *at;
    size_t length, room; /* bytes */
    bool overflow;
};

/** Appends the pair and its NUL, or nothing of it. */
void text_write(struct text_writer *writer, const char *key, size_t key_length,
        const char *value);
void text_write_key(struct text_writer *writer, const char *key, const char *value);
void text_write_number(struct text_writer *writer, const char *key, uint32_t number);
/** As 0x and hexadecimal digits; at most 32 bytes. */
void text_write_binary(struct text_writer *writer, const char *key,
        const uint8_t *bytes, size_t length);

/**
 * Decodes 0x hexadecimal or 0b base64. Returns bytes in @to (at most @room), or -1: neither
 * form, an odd number of digits, foreign letters, wrong padding, longer than @room (found
 * before anything is written).
 */
int text_binary(const char *value, size_t length, uint8_t *to, size_t room);

enum { TEXT_NAME_MAX = 223 }; /* bytes of an iSCSI name, RFC 7143 4.2.7 */

/**
 * An iSCSI name as it is compared: checked (iqn. eui. naa. forms, 1 .. 223 bytes of the
 * letters that names have) and in lower case, with its NUL into @to[TEXT_NAME_MAX + 1].
 * False: it is none, and @to is "".
 */
bool text_name(const char *name, char *to);

#endif
