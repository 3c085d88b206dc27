#!/usr/bin/env bash
# The tests of the engines on servers that are newer than this system's, and on those that it has not: see
# setup_newest.sh. The folder has to be one that the user who runs the servers can reach.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:-/var/tmp/coatcheck-servers}

bash scripts/setup_newest.sh "$folder"
failed=0
for set in newest oracle; do
    echo "Servers of the set '$set':"
    for program in "$folder/$set"/bin/{redis-server,mariadbd,postgres,memcached,pgbouncer}; do
        [ ! -e "$program" ] || "$program" --version | head -1
    done
    PATH="$folder/$set/bin:$PATH" .venv/bin/pytest -q -n auto --maxprocesses 4 --dist loadgroup -m server || failed=1
done
exit $failed
