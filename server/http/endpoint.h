/* server/http/endpoint.h - ADDR:PORT, numeric only, as text and as a socket address. */
#ifndef SERVER_HTTP_ENDPOINT_H
#define SERVER_HTTP_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

enum { ENDPOINT_TEXT = 64 };

struct endpoint {
    struct sockaddr_storage storage;
    socklen_t length;
};

/** "127.0.0.1:8080" or "[::1]:0". False for names, missing ports, zone ids. */
bool endpoint_parse(const char *text, struct endpoint *address);

/** 127.0.0.0/8, ::1, and the former mapped into IPv6. */
bool endpoint_is_loopback(const struct endpoint *address);

/** With the port, IPv6 in brackets. "?" for another family. */
void endpoint_format(const struct sockaddr *address, char text[ENDPOINT_TEXT]);

/** The address alone, without port and brackets. */
void endpoint_format_host(const struct sockaddr *address, char text[ENDPOINT_TEXT]);

#endif
