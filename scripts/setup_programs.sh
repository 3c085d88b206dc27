#!/usr/bin/env bash
# Sees to the programs that the tests drive from outside: Debian's Chromium with its driver, curl, openssl, and the
# servers of the engines. The tests start the servers themselves; as services of this machine none is started.
# Without a program its tests are skipped, which is said here; with CI=true that is a failure.
set -euo pipefail

# What is looked for: a program, and the package that has it. Some servers are only on root's PATH.
programs="
    chromium:chromium chromedriver:chromium-driver curl:curl openssl:openssl nginx:nginx-light
    redis-server:redis-server redis-sentinel:redis-sentinel
    mariadbd:mariadb-server memcached:memcached pgbouncer:pgbouncer
"
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

missing() {
    local pair
    for pair in $programs; do
        command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
    done
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || echo postgresql
}

# A package that starts its service asks this file first, and is told no. One that somebody else put there stays.
forbid_services() {
    local policy=/usr/sbin/policy-rc.d
    [ ! -e "$policy" ] || return 0
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

packages=$(missing)
[ -n "$packages" ] || exit 0
packages=$(echo $packages)

if ! command -v apt-get >/dev/null; then
    why="this machine has no apt-get"
elif [ "$(id -u)" != 0 ]; then
    why="installing them needs root: sudo apt-get install $packages"
else
    echo "Installing $packages" >&2
    export DEBIAN_FRONTEND=noninteractive
    forbid_services
    # shellcheck disable=SC2086  # several packages
    if apt-get update -qq && apt-get install -qq -y --no-install-recommends $packages >/dev/null; then
        packages=$(missing)
        [ -n "$packages" ] || exit 0
    fi
    why="apt-get could not install them"
fi

if [ "${CI:-}" = true ]; then
    echo "Missing: $packages ($why). With CI=true nothing may be skipped." >&2
    exit 1
fi
echo "SKIPPED: the tests that need $(echo $packages) ($why)." >&2
