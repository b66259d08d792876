#include <stdio.h>

#include "server/lifetime.h"
#include "server/options.h"
#include "server/probe.h"

enum { PROBE_MS = 5000, USAGE = 2 };

int main(int argc, char **argv)
{
    struct options options;
    char why[OPTION_WHY] = "";
    int result = USAGE;

    if (options_parse(&options, argc, argv, why) != 0) {
        (void)fprintf(stderr, "replicad: %s\n", why);
    } else if (options.help) {
        options_help(stdout);
        result = 0;
    } else if (options.version) {
        (void)printf("replicad " REPLICAD_VERSION "\n");
        result = 0;
    } else if (options.check_health) {
        result = probe_ready(options.check_health, PROBE_MS);
    } else {
        result = lifetime_run(&options);
    }
    options_finish(&options);
    return result;
}
