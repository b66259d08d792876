/* server/http/body.h - the media type of a body; pure. */
#ifndef SERVER_HTTP_BODY_H
#define SERVER_HTTP_BODY_H

#include <stdbool.h>

/** True when @value is @wanted ("application/json"), perhaps with charset=utf-8. */
bool media_type_is(const char *value, const char *wanted);

#endif
