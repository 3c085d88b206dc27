#!/usr/bin/env bash
# Prints the Python to work with: $PYTHON where it is set, else the first that is 3.11 or newer and has venv.
# With --newest: the newest such Python on this machine, whatever $PYTHON says.
set -euo pipefail

# A pyenv shim exists for versions that are not switched on, so a name on the PATH proves nothing: each is run.
version() {
    "$1" -c 'import ensurepip, sys, venv
if sys.version_info < (3, 11): sys.exit(1)
print("%d %d %d" % sys.version_info[:3])' 2>/dev/null
}

candidates() {
    local minor
    for minor in 19 18 17 16 15 14 13 12 11; do echo "python3.$minor"; done
    ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python 2>/dev/null || true
}

if [ "${1:-}" = --newest ]; then
    newest=$(candidates | while read -r name; do
        if found=$(version "$name"); then echo "$found $(command -v "$name")"; fi
    done | sort -n -k1,1 -k2,2 -k3,3 | tail -n 1)
    echo "${newest#* * * }"
    exit 0
fi

if [ -n "${PYTHON:-}" ]; then
    if version "$PYTHON" >/dev/null; then
        echo "$PYTHON"
        exit 0
    fi
    echo "PYTHON=$PYTHON is no Python 3.11 or newer with venv: name another, as in make PYTHON=python3.12 ..." >&2
    exit 1
fi

while read -r name; do
    if version "$name" >/dev/null; then
        command -v "$name"
        exit 0
    fi
done < <(echo python3; candidates)
echo "No Python 3.11 or newer with venv was found: install one (Debian: apt-get install python3 python3-venv)," >&2
echo "or name it, as in make PYTHON=/path/to/python3.12 ..." >&2
exit 1
