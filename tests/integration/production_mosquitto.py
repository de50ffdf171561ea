"""Mosquitto on deploy/mosquitto, with only paths and port changed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chargewatch.local.broker import mosquitto_program
from chargewatch.local.processes import (
    ChildProcess,
    free_port,
    make_engine_folder,
    port_answers,
    service_account,
    temporary_folder,
    write_private,
)

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "mosquitto"


def add_users(passwords: Path, lines: str) -> subprocess.CompletedProcess[str]:
    """Add lines NAME:PASSWORD to a password file, as docs/operating.md says."""
    return subprocess.run(
        ["sh", str(DEPLOY / "users.sh"), str(passwords)],
        input=lines,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def production_mosquitto(users: Sequence[str]) -> Iterator[str]:
    """Run it with users whose passwords are pw-NAME; yield its address."""
    account, port = service_account(), free_port()
    with temporary_folder() as folder:
        work = folder / "broker"
        make_engine_folder(work, account=account)
        made = add_users(folder / "made", "".join(f"{user}:pw-{user}\n" for user in users))
        assert made.returncode == 0, made.stderr
        write_private(work / "passwords", (folder / "made").read_text(), account=account)
        write_private(work / "acl", (DEPLOY / "acl").read_text(), account=account)
        text = (DEPLOY / "chargewatch.conf").read_text()
        text = text.replace("/mosquitto/secrets/", f"{work}/").replace(
            "/mosquitto/config/", f"{work}/"
        )
        text = text.replace("/mosquitto/data/", f"{work}/")
        text = text.replace("listener 1883", f"listener {port} 127.0.0.1")
        write_private(work / "mosquitto.conf", text, account=account)
        program = mosquitto_program()
        assert program is not None
        process = ChildProcess(
            "mosquitto",
            [program, "-c", work / "mosquitto.conf"],
            log=folder / "log",
            account=account,
            folder=work,
        )
        with process:
            process.start(lambda: port_answers(port))
            yield f"mqtt://127.0.0.1:{port}"
