/* server/notify.h - what systemd wants to hear: one datagram to $NOTIFY_SOCKET. */
#ifndef SERVER_NOTIFY_H
#define SERVER_NOTIFY_H

/** Sends @state ("READY=1"). Nothing happens when nobody listens. */
void notify_manager(const char *state);

#endif
