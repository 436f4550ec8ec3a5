#!/bin/sh
# pytest-xdist 3.8.0 with pytest 9.2.0, Python 3.11: `--dist loadgroup` ignores `xdist_group`.
# Expected: tests with the same group name run in the same worker, as the documentation of --dist loadgroup says.
# Seen: six tests of one group run in both of two workers, without a warning; with pytest 8.4.2 they run in one.
#   pytest 9.2.0: workers gw0 gw1
#   pytest 8.4.2: workers gw0
# A fixture of session scope that one group shares is therefore made in each worker.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/test_group.py" <<'PYTHON'
import pathlib
import time

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(6))
def test_where(number, worker_id):
    with pathlib.Path("workers").open("a") as seen:
        seen.write(f"{worker_id}\n")
    time.sleep(0.3)
PYTHON
workers_with() {
    python3 -m venv "$folder/$1"
    "$folder/$1/bin/python" -m pip install --quiet --disable-pip-version-check "pytest==$1" pytest-xdist==3.8.0
    (cd "$folder" && rm -f workers && "$1/bin/python" -m pytest -q -n 2 --dist loadgroup -p no:cacheprovider test_group.py >/dev/null)
    sort -u "$folder/workers" | paste -sd' '
}
new=$(workers_with 9.2.0)
old=$(workers_with 8.4.2)
printf 'pytest 9.2.0: workers %s\npytest 8.4.2: workers %s\n' "$new" "$old"
[ "$new" = "gw0 gw1" ] && [ "${old#* }" = "$old" ]
