#!/usr/bin/env bash
# Sees to the programs that the tests drive from outside: Debian's Chromium with its driver, and curl.
# Without them their tests are skipped, which is said here; with CI=true that is a failure.
set -euo pipefail

missing() {
    command -v chromium >/dev/null || echo chromium
    command -v chromedriver >/dev/null || echo chromium-driver
    command -v curl >/dev/null || echo curl
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
echo "SKIPPED: the tests that need $packages ($why)." >&2
