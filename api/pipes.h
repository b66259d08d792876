/* api/pipes.h - what a pipe says to those who use it. Private to api/. */
#ifndef API_PIPES_H
#define API_PIPES_H

#include "api/resource.h"

/** Is the portal among the pipe's endpoints? */
bool pipe_holds(const struct store_pipe *pipe, const struct sockaddr_storage *portal);

/** May the portal be spoken to, by the options? */
bool portal_is_allowed(
        const struct service *service, const struct sockaddr_storage *portal);

#endif
