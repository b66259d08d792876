/* server/http/address.h - ADDR:PORT, numeric only, as text and as a socket address. */
#ifndef SERVER_HTTP_ADDRESS_H
#define SERVER_HTTP_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

enum { ADDRESS_TEXT = 64 };

struct address {
    struct sockaddr_storage storage;
    socklen_t length;
};

/** "127.0.0.1:8080" or "[::1]:0". False for names, missing ports, zone ids. */
bool address_parse(const char *text, struct address *address);

/** 127.0.0.0/8, ::1, and the former mapped into IPv6. */
bool address_is_loopback(const struct address *address);

/** With the port, IPv6 in brackets. "?" for another family. */
void address_format(const struct sockaddr *address, char text[ADDRESS_TEXT]);

/** The address alone, without port and brackets. */
void address_format_host(const struct sockaddr *address, char text[ADDRESS_TEXT]);

#endif
