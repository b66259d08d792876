/* server/options.tbl.h - one row an option: the command line, the keys of the configuration
 * and --help come from here.
 * ONE(symbol, name, argument, help), LIST: may be repeated, FLAG: takes no argument on the
 * command line and true or false in the configuration. */
ONE(DATA_DIR, "data-dir", "DIR", "where the database and the default pool live")
LIST(HTTP, "http", "ADDR:PORT", "serve the API here [127.0.0.1:8080]")
ONE(HEALTH, "health", "ADDR:PORT", "a listener for probes and metrics alone")
LIST(ISCSI, "iscsi", "ADDR:PORT",
        "serve exported elements here, or none [127.0.0.1:3260]")
LIST(POOL, "pool", "NAME=DIR", "a directory for elements; the first is the default")
LIST(ALLOW_PORTAL, "allow-portal", "ADDR[/BITS][:PORT]",
        "iSCSI portals that may be used [loopback]")
ONE(CREDENTIALS, "credentials", "DIR", "files with CHAP secrets, mode 0600")
ONE(INITIATOR_NAME, "initiator-name", "IQN", "our name [made once and kept]")
ONE(IQN_PREFIX, "iqn-prefix", "P",
        "of exports' target names [iqn.2026-11.org.replicad]")
ONE(CONNECT_TIMEOUT, "connect-timeout", "S", "seconds for a login, 1 to 300 [5]")
ONE(IO_TIMEOUT, "io-timeout", "S", "seconds for one command, 1 to 3600 [30]")
ONE(WORKERS, "workers", "N", "worker loops, 1 to 64 [one a core]")
ONE(MAX_JOBS, "max-jobs", "N", "jobs that run at once, 1 to 1024 [4]")
ONE(BANDWIDTH_LIMIT, "bandwidth-limit", "BYTES",
        "a second, for all copies together; read again at SIGHUP [0: none]")
LIST(HTTP_HOST, "http-host", "NAME", "a name that the Host header may hold")
FLAG(HTTP_UNPROTECTED, "http-unprotected",
        "let --http bind beyond loopback, without a login")
ONE(LOG_LEVEL, "log-level", "LEVEL", "error, warn, info or debug [info]")
ONE(LOG_FORMAT, "log-format", "FORMAT", "json or text [text on a terminal, else json]")
