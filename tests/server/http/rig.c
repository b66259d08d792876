#include "tests/server/http/rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "replica/base/log.h"

struct rig rig_start(struct http_options options)
{
    static const char *const any = "127.0.0.1:0";
    struct fault fault = { 0 };
    struct rig rig = { .service = fake_create() };

    log_setup(LOG_ERROR, false);
    if (options.address_count == 0) {
        options.addresses = &any;
        options.address_count = 1;
    }
    options.health = any;
    rig.http = http_start(rig.service, &options, &fault);
    if (!rig.http) {
        fprintf(stderr, "rig: %s\n", fault.why);
        abort();
    }
    rig.address = http_address(rig.http, 0);
    rig.health = http_health_address(rig.http);
    return rig;
}

void rig_stop(struct rig *rig)
{
    service_drain(rig->service);
    http_quiesce(rig->http, 60000);
    http_stop(rig->http);
    service_destroy(rig->service);
}

int rig_raw(const struct rig *rig, const char *bytes, size_t length, int ms, char *text,
        size_t room, bool *ended)
{
    int fd = raw_open(rig->address);

    text[0] = '\0';
    *ended = false;
    if (fd < 0)
        return 0;
    (void)raw_send(fd, bytes, length);
    (void)raw_read(fd, NULL, ms, text, room, ended);
    close(fd);
    return strncmp(text, "HTTP/1.", 7) == 0 ? atoi(text + 9) : 0;
}
