"""Where TimescaleDB and Mosquitto come from: packages, a root folder of our own, or Docker."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

RELEASE = "trixie"
PACKAGES = "postgresql-17,postgresql-17-timescaledb,mosquitto"
ROOT_FOLDER_VERSION = 1
DEVICES = {"null": (1, 3), "zero": (1, 5), "random": (1, 8), "urandom": (1, 9)}


class ServicesError(Exception):
    """Something that the user has to know, with the next step."""


def say(line: str) -> None:
    """Print a line for people."""
    print(f"services: {line}", file=sys.stderr, flush=True)


def find_program(name: str) -> Path | None:
    """Return a program of PATH or of the system's folders for services."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin"
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def system_postgres() -> Path | None:
    """Return the program folder of an installed PostgreSQL that has TimescaleDB."""
    found = []
    for programs in Path("/usr/lib/postgresql").glob("*/bin"):
        version = programs.parent.name
        control = Path(f"/usr/share/postgresql/{version}/extension/timescaledb.control")
        if control.exists() and (programs / "postgres").exists():
            found.append((int(version), programs))
    if found:
        return max(found)[1]
    pg_config = find_program("pg_config")
    if pg_config is None:
        return None
    asked = [str(pg_config), "--bindir", "--sharedir"]
    programs_folder, shared = subprocess.run(
        asked, capture_output=True, text=True, check=True, timeout=10
    ).stdout.split()
    control = Path(shared) / "extension" / "timescaledb.control"
    programs = Path(programs_folder)
    return programs if control.exists() and (programs / "postgres").exists() else None


def docker_engine() -> bool:
    """Return whether a Docker engine answers."""
    if find_program("docker") is None:
        return False
    try:
        asked = ["docker", "info", "--format", "{{.ServerVersion}}"]
        return subprocess.run(asked, capture_output=True, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def choose_provider() -> str:
    """Return system, folder or docker.

    Raises: ServicesError with what to do when none is possible.
    """
    wanted = os.environ.get("CHARGEWATCH_SERVICES_PROVIDER", "")
    if wanted and wanted not in {"system", "folder", "docker"}:
        raise ServicesError(
            f"CHARGEWATCH_SERVICES_PROVIDER={wanted!r}: use system, folder or docker"
        )
    if wanted:
        return wanted
    if system_postgres() and find_program("mosquitto"):
        return "system"
    if os.geteuid() == 0 and (find_program("mmdebstrap") or find_program("apt-get")):
        return "folder"
    if docker_engine():
        return "docker"
    raise ServicesError(
        "neither packages nor Docker here: install postgresql-17, postgresql-17-timescaledb and "
        "mosquitto (Debian 13 has them), or run this as root on Debian or Ubuntu, or start Docker"
    )


def cache_folder() -> Path:
    """Return the folder of what may be kept and can be made again."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "chargewatch"


def root_folder_path() -> Path:
    """Return where the Debian root folder is cached."""
    return cache_folder() / f"{RELEASE}-{os.uname().machine}-{ROOT_FOLDER_VERSION}"


def ensure_root_folder() -> Path:
    """Return the cached Debian root folder; make it when it isn't there.

    Raises: ServicesError with mmdebstrap's last words.
    """
    folder = root_folder_path()
    if folder.is_dir():
        ensure_devices(folder)
        return folder
    if os.geteuid() != 0:
        raise ServicesError("a Debian root folder can only be made and run by root")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            make_root_folder(folder)
    ensure_devices(folder)
    return folder


def make_root_folder(folder: Path) -> None:
    """Make the Debian root folder with PostgreSQL, TimescaleDB and Mosquitto in it."""
    began = time.monotonic()
    if find_program("mmdebstrap") is None:
        say("installing mmdebstrap")
        run_package_command(["apt-get", "update", "-qq"])
        run_package_command(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "mmdebstrap"]
        )
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    say(f"making a Debian root folder with TimescaleDB and Mosquitto in {folder} (once)")
    # postgresql-common would make a cluster of its own that nobody needs.
    no_cluster = (
        'mkdir -p "$1/etc/postgresql-common" && '
        'echo "create_main_cluster = false" > "$1/etc/postgresql-common/createcluster.conf"'
    )
    run_package_command(
        [
            "mmdebstrap",
            "--quiet",
            "--variant=apt",
            f"--include={PACKAGES}",
            '--aptopt=Acquire::Languages "none"',
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            "--dpkgopt=force-confold",
            f"--essential-hook={no_cluster}",
            RELEASE,
            str(partial),
        ]
    )
    partial.rename(folder)
    say(f"root folder made in {time.monotonic() - began:.0f} s")


def run_package_command(command: list[str]) -> None:
    """Run apt-get or mmdebstrap; its output is shown only when it fails."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ServicesError(f"{command[0]} failed: {exc}") from exc
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ServicesError(f"{command[0]} failed with status {done.returncode}:\n{last}")


def ensure_devices(folder: Path) -> None:
    """Make the device files that the services open; a copied root folder may lack them."""
    for name, (major, minor) in DEVICES.items():
        path = folder / "dev" / name
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISCHR(path.stat().st_mode):
                continue
            path.unlink()
        path.parent.mkdir(exist_ok=True)
        try:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
        except PermissionError as exc:
            raise ServicesError(
                f"{path} can't be made here (a container without CAP_MKNOD?): "
                "use CHARGEWATCH_SERVICES_PROVIDER=system or docker"
            ) from exc
        path.chmod(0o666)
