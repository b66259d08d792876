/* The command line and the configuration: what is taken, what is refused, who wins. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/directory.h"
#include "server/options.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct options options;
static char why[OPTION_WHY];

/* @line: blank-separated. */
static int parse(const char *line)
{
    static char copy[1024];
    char *argv[32] = { (char[]){ "replicad" } }, *rest = copy;
    int argc = 1;

    options_finish(&options);
    why[0] = '\0';
    snprintf(copy, sizeof(copy), "%s", line);
    while (*line && argc < 31 && (argv[argc] = strsep(&rest, " ")))
        argc++;
    return options_parse(&options, argc, argv, why);
}

/* A configuration in a file of its own, and its name after --config. */
static int parse_config(const char *yaml, const char *line)
{
    char path[] = "/tmp/replicad-config-XXXXXX", all[512];
    int fd = mkstemp(path), result;

    cr_assert(fd >= 0 && write(fd, yaml, strlen(yaml)) == (ssize_t)strlen(yaml));
    snprintf(all, sizeof(all), "--config %s%s%s", path, *line ? " " : "", line);
    result = parse(all);
    close(fd);
    unlink(path);
    return result;
}

static void end(void)
{
    options_finish(&options);
}

TestSuite(options, .fini = end);

Test(options, nothing_at_all)
{
    cr_assert(parse("") == 0, "%s", why);
    for (int i = 0; i < OPTION_COUNT; i++)
        cr_assert(options.values[i].count == 0);
    cr_assert(options.connect_timeout_s == 5 && options.io_timeout_s == 30);
    cr_assert(options.workers == 0 && options.max_jobs == 0 && options.pool_count == 0);
    cr_assert(options.log_level == LOG_INFO && !options.http_unprotected);
    cr_assert(!options.check_health && !options.help && !options.version);
}

Test(options, everything)
{
    cr_assert(parse("--data-dir /d --http 127.0.0.1:0 --http [::1]:81 --health "
                    "0.0.0.0:82 "
                    "--iscsi 127.0.0.1:3260 --pool a=/p/a --pool b.c=rel/b=x "
                    "--allow-portal "
                    "10.0.0.0/8:3260 --allow-portal ::1 --credentials /c "
                    "--initiator-name "
                    "iqn.2026-11.example:us --iqn-prefix iqn.2026-11.example --workers "
                    "64 "
                    "--max-jobs=1024") == 0,
            "%s", why);
    cr_assert_str_eq(options_text(&options, OPTION_DATA_DIR), "/d");
    cr_assert(options.values[OPTION_HTTP].count == 2);
    cr_assert_str_eq(options.values[OPTION_HTTP].items[1], "[::1]:81");
    cr_assert_str_eq(options_text(&options, OPTION_HEALTH), "0.0.0.0:82");
    cr_assert(options.pool_count == 2);
    cr_assert_str_eq(options.pools[0].name, "a");
    cr_assert_str_eq(options.pools[1].name, "b.c");
    cr_assert_str_eq(options.pools[1].path, "rel/b=x");
    cr_assert(options.values[OPTION_ALLOW_PORTAL].count == 2);
    cr_assert(options.workers == 64 && options.max_jobs == 1024);
    cr_assert(parse("--connect-timeout 300 --io-timeout 3600 --log-level debug "
                    "--log-format "
                    "json --http-host nas.example --http-unprotected --http "
                    "0.0.0.0:80") == 0,
            "%s", why);
    cr_assert(options.connect_timeout_s == 300 && options.io_timeout_s == 3600);
    cr_assert(options.log_level == LOG_DEBUG && options.log_json);
    cr_assert(options.http_unprotected);
    cr_assert(parse("--log-format text") == 0 && !options.log_json);
}

Test(options, each_refusal_is_one_line_that_names_the_option)
{
    static const char *const lines[] = {
        "--nothing",
        "--data-dir",
        "--workers 0",
        "--workers 65",
        "--workers x",
        "--workers -1",
        "--workers 1.5",
        "--workers 99999999999999999999",
        "--max-jobs 0",
        "--max-jobs 1025",
        "--bandwidth-limit fast",
        "--bandwidth-limit -1",
        "--bandwidth-limit 1M",
        "--connect-timeout 0",
        "--connect-timeout 301",
        "--io-timeout 0",
        "--io-timeout 3601",
        "--io-timeout 30s",
        "--http localhost:80",
        "--http 127.0.0.1",
        "--http 0.0.0.0:80",
        "--http [::]:80",
        "--http 192.0.2.1:80",
        "--http none",
        "--health nowhere",
        "--health 127.0.0.1:99999",
        "--iscsi x",
        "--pool x",
        "--pool =/d",
        "--pool a=",
        "--pool .a=/d",
        "--pool a/b=/d",
        "--pool a=/d --pool a=/e",
        "--http-host a:80",
        "--http-host a/b",
        "--log-level loud",
        "--log-format xml",
        "--initiator-name us",
        "--initiator-name iqn.2026-11.Example:us",
        "--iqn-prefix iqn.x",
        "--data-dir /a --data-dir /b",
        "--health 127.0.0.1:1 --health 127.0.0.1:2",
        "--http-unprotected=yes",
    };

    for (size_t i = 0; i < COUNT(lines); i++) {
        char name[64];

        cr_expect(parse(lines[i]) == -22, "%s is taken", lines[i]);
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(lines[i], " ="), lines[i]);
        cr_expect(strstr(why, name), "%s: %s", lines[i], why);
        cr_expect(!strchr(why, '\n'), "%s", why);
    }
    cr_assert(parse("serve") == -22 && strstr(why, "serve"));
    cr_assert(parse("-x") == -22);
}

Test(options, the_other_modes_need_no_more)
{
    cr_assert(parse("--check-health 127.0.0.1:81") == 0);
    cr_assert_str_eq(options.check_health, "127.0.0.1:81");
    cr_assert(parse("--help") == 0 && options.help);
    cr_assert(parse("--version") == 0 && options.version);
}

static const char all_keys[] = "data-dir: /from/config\n"
                               "http: [ '127.0.0.1:81', '[::1]:82' ]\n"
                               "health: 127.0.0.1:83\n"
                               "iscsi:\n  - 127.0.0.1:3260\n"
                               "pool:\n  - a=/p/a\n  - b=/p/b\n"
                               "allow-portal: [ 10.0.0.0/8 ]\n"
                               "credentials: /c\n"
                               "initiator-name: iqn.2026-11.example:us\n"
                               "iqn-prefix: iqn.2026-11.example\n"
                               "connect-timeout: 7\n"
                               "io-timeout: 8\n"
                               "workers: 3\n"
                               "max-jobs: 9\n"
                               "bandwidth-limit: 123456789012\n"
                               "http-host: [ nas, other ]\n"
                               "http-unprotected: false\n"
                               "log-level: warn\n"
                               "log-format: text\n"
                               "retention: { days: 3, rows: 500 }\n";

Test(options, every_option_has_a_key_of_its_name)
{
    cr_assert(parse_config(all_keys, "") == 0, "%s", why);
    for (int i = 0; i < OPTION_COUNT; i++)
        cr_assert(options.values[i].count > 0, "option %d", i);
    cr_assert_str_eq(options_text(&options, OPTION_DATA_DIR), "/from/config");
    cr_assert_str_eq(options.values[OPTION_HTTP].items[1], "[::1]:82");
    cr_assert(options.connect_timeout_s == 7 && options.io_timeout_s == 8);
    cr_assert(options.workers == 3 && options.max_jobs == 9 && options.pool_count == 2);
    cr_assert(options.bandwidth_limit == 123456789012);
    cr_assert(options.log_level == LOG_WARN && !options.log_json);
    cr_assert(options.retention_days == 3 && options.retention_rows == 500);
}

Test(options, the_command_line_wins)
{
    cr_assert(parse_config(all_keys,
                      "--data-dir /mine --http 127.0.0.1:99 --pool z=/z "
                      "--workers 5 --http-unprotected") == 0,
            "%s", why);
    cr_assert_str_eq(options_text(&options, OPTION_DATA_DIR), "/mine");
    cr_assert(options.values[OPTION_HTTP].count == 1, "a list is replaced, not mixed");
    cr_assert_str_eq(options_text(&options, OPTION_HTTP), "127.0.0.1:99");
    cr_assert(options.pool_count == 1 && options.workers == 5 &&
            options.http_unprotected);
    cr_assert(options.max_jobs == 9);
    cr_assert(parse_config("http-unprotected: true\nhttp: [ 0.0.0.0:80 ]\n", "") == 0);
    cr_assert(parse_config("http: [ 0.0.0.0:80 ]\n", "--http-unprotected") == 0);
}

Test(options, a_configuration_that_is_refused)
{
    static const char *const bad[][2] = {
        { "nothing: 1\n", "nothing" },
        { "http: 127.0.0.1:80\n", "http" },
        { "workers: many\n", "--workers many" },
        { "workers: 65\n", "--workers 65" },
        { "workers: [ 1 ]\n", "workers" },
        { "http-unprotected: perhaps\n", "perhaps" },
        { "http: [ 0.0.0.0:80 ]\n", "--http 0.0.0.0:80" },
        { "retention: { days: 0 }\n", "days" },
        { "retention: { rows: none }\n", "rows" },
        { "retention: { weeks: 3 }\n", "weeks" },
        { "data-dir: /a\n  b: [\n", "configuration" },
        { "- a\n", "configuration" },
        { "check-health: 127.0.0.1:1\n", "check-health" },
        { "config: /etc/x\n", "config" },
        { "a: &a b\ndata-dir: *a\n", "configuration" },
    };

    for (size_t i = 0; i < COUNT(bad); i++) {
        cr_expect(parse_config(bad[i][0], "") == -22, "taken: %s", bad[i][0]);
        cr_expect(strstr(why, bad[i][1]), "%s: %s", bad[i][0], why);
        cr_expect(!strchr(why, '\n') && strlen(why) > 10, "%s", why);
    }
    cr_assert(parse("--config /nowhere/at/all") == -22 &&
                    strstr(why, "/nowhere/at/all: No such file"),
            "%s", why);
    cr_assert(parse_config("", "") == 0, "an empty file says nothing: %s", why);
}

Test(options, the_directory_when_nobody_says)
{
    char base[] = "/tmp/replicad-dir-XXXXXX", path[128];
    struct fault fault = { 0 };
    struct stat about;
    char *chosen;

    cr_assert(mkdtemp(base));
    snprintf(path, sizeof(path), "%s/state/deep:/second", base);
    setenv("STATE_DIRECTORY", path, 1);
    chosen = directory_choose(NULL, &fault);
    cr_assert(chosen, "%s", fault.why);
    path[strlen(path) - 8] = '\0';
    cr_assert_str_eq(chosen, path);
    cr_assert(stat(chosen, &about) == 0 && (about.st_mode & 0777) == 0700);
    free(chosen);

    snprintf(path, sizeof(path), "%s/given", base);
    chosen = directory_choose(path, &fault);
    cr_assert_str_eq(chosen, path);
    free(chosen);

    snprintf(path, sizeof(path), "%s/file", base);
    FILE *file = fopen(path, "w");
    cr_assert(file);
    fclose(file);
    cr_assert(directory_choose(path, &fault) == NULL && strstr(fault.why, path));
    snprintf(path, sizeof(path), "%s/file/below", base);
    cr_assert(directory_choose(path, &fault) == NULL && fault.error == -20, "%d",
            fault.error);
    snprintf(path, sizeof(path), "rm -r %s", base);
    cr_assert(system(path) == 0);
}
