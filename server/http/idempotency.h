/* server/http/idempotency.h - the value of an Idempotency-Key header; pure. */
#ifndef SERVER_HTTP_IDEMPOTENCY_H
#define SERVER_HTTP_IDEMPOTENCY_H

#include <stdbool.h>

enum { IDEMPOTENCY_KEY_MAX = 255 };

/**
 * A structured-field string ("abc", with \" and \\), or the bare characters. False when it is
 * empty, too long, broken, or holds anything but printable ASCII.
 */
bool idempotency_key_parse(const char *value, char key[IDEMPOTENCY_KEY_MAX + 1]);

#endif
