"""The wheel holds everything that the command needs outside a checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from running import CHECKOUT, checkout_files


def test_wheel_holds_every_file_of_package_and_migrations(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    listed = [*checkout_files("src/chargewatch"), *checkout_files("migrations")]
    in_wheel = ("src/", ""), ("migrations/", "chargewatch/_migrations/")
    wanted = {
        there + name.removeprefix(here)
        for here, there in in_wheel
        for name in listed
        if name.startswith(here)
    }
    assert wanted
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
    assert wanted - held == set()
    assert [name for name in held if "__pycache__" in name] == []
    assert any(name.endswith("licenses/LICENSE") for name in held)
