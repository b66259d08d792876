# scripts/lib.sh - shared by the scripts: what is needed, installed when it is missing.
# Sourced, not run.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

BUILD_PACKAGES="build-essential cmake ninja-build pkg-config libuv1-dev libiscsi-dev
    liburing-dev libmicrohttpd-dev libjansson-dev libsqlite3-dev libisal-dev libxxhash-dev
    libgnutls28-dev libcyaml-dev libyaml-dev"
DEMO_PACKAGES="curl jq e2fsprogs"
TEST_PACKAGES="git python3 clang libclang-rt-14-dev clang-format-14 cppcheck
    libcriterion-dev libcurl4-gnutls-dev sqlite3 tgt libiscsi-bin qemu-utils
    qemu-block-extra prometheus xfsprogs util-linux"

say() {
    printf '%s\n' "$*" >&2
}

die() {
    say "$(basename "$0"): $*"
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "packages are missing and there is neither root nor sudo"
    fi
}

# Services of packages that we install for the tests (tgt, prometheus) must not start: a
# policy that answers 101 holds them back while the packages are set up, and goes away.
hold_services() {
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\n# replicad scripts: start nothing while installing\nexit 101\n' |
            as_root tee $policy >/dev/null
        as_root chmod 755 $policy
        trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
    fi
}

# need PACKAGE...: install those that are not there.
need() {
    missing=""
    for package in "$@"; do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$state" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing:$missing"
    (
        hold_services
        as_root apt-get update -qq
        # shellcheck disable=SC2086 # a list of words
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends $missing >/dev/null
    )
}

# need_node: the Node that is there, else Debian's.
need_node() {
    command -v node >/dev/null && command -v npm >/dev/null || need nodejs npm
}

jobs_here() {
    nproc
}

# configure_and_build PRESET [TARGET...]: quiet unless it fails.
build_preset() {
    preset=$1
    shift
    mkdir -p build
    log=build/$preset.log
    args=()
    for target in "$@"; do
        args+=(--target "$target")
    done
    if ! { cmake --preset "$preset" && cmake --build --preset "$preset" -j "$(jobs_here)" "${args[@]}"; } \
        >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        die "the $preset build failed (whole log: $log)"
    fi
}
