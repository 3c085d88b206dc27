#!/usr/bin/env bash
# The fast suite on the newest Python of this machine, against the same wheels, where that is not the usual one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version_of() { "$1" -c 'import platform; print(platform.python_version())'; }

python=$(bash scripts/find_python.sh)
newest=$(bash scripts/find_python.sh --newest)
minor=$("$newest" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$minor" = "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" ]; then
    echo "No Python newer than $(version_of "$python") is installed here, so no other one is tested."
    exit 0
fi
"$newest" scripts/setup_env.py ".venv-$minor" wheels
echo "Python $(version_of "$newest"): the fast suite, against the wheels"
".venv-$minor/bin/pytest" -q -n auto -m "not slow and not browser and not server" "$@"
