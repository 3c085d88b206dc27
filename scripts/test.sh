#!/usr/bin/env bash
# All of `make test`: sees to the browser and the servers, builds the wheels, runs the fast suite on the newest Python
# and then the whole suite on the usual one. pytest takes this script's place, so its closing line is the last and its
# status counts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup_programs.sh
python=$(bash scripts/find_python.sh)
"$python" scripts/setup_env.py .venv-test wheels
# The suite must meet what users install. Neither src folder may be on the path.
.venv-test/bin/python -P -c '
import pathlib, platform, sys, coatcheck, web
for module in (coatcheck, web):
    home = pathlib.Path(module.__file__)
    if pathlib.Path(sys.prefix) not in home.parents:
        sys.exit(f"{module.__name__} comes from {home}, not from the wheel: unset PYTHONPATH")
'
bash scripts/test_matrix.sh
version=$(.venv-test/bin/python -c 'import platform; print(platform.python_version())')
echo "Python $version: the whole suite, against the wheels"
# Side by side, because much of it is waiting for servers that were killed; what shares a server stays together.
status=0
.venv-test/bin/pytest -n auto --maxprocesses 4 --dist loadgroup "$@" || status=$?
[ "$status" = 1 ] || exit "$status"
# Servers that are killed beside others that are being started can starve each other. What is really broken fails alone
# as well; both runs are told in full.
echo "Once more, one by one: the tests that failed side by side (see above)"
exec .venv-test/bin/pytest --last-failed --last-failed-no-failures none "$@"
