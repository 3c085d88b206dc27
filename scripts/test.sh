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
# Four side by side on any machine, because much of it is waiting for servers that were killed; what shares a server
# stays together.
exec .venv-test/bin/pytest -n 4 --dist loadgroup "$@"
