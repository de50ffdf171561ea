"""TimescaleDB and Mosquitto in a Docker engine, by deploy/services/compose.yaml."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services_local import free_port, port_answers
from services_provider import ServicesError


class DockerServices:
    """Starts and stops both services as one compose project; data lives in memory."""

    def __init__(self, checkout: Path) -> None:
        self._file = checkout / "deploy" / "services" / "compose.yaml"

    def running(self, state: Any) -> tuple[bool, bool]:
        """Return whether the database and the broker take connections."""
        return port_answers(state.database_port), port_answers(state.broker_port)

    def start(self, state: Any, *, save: Callable[[Any], None]) -> None:
        """Start both and wait until they are healthy."""
        state.database_port = state.database_port or free_port()
        state.broker_port = state.broker_port or free_port()
        save(state)
        self._compose(state, "up", "--detach", "--wait", "--wait-timeout", "180")

    def stop(self, state: Any) -> None:
        """End both and delete their containers, network and data."""
        self._compose(state, "down", "--volumes", "--remove-orphans")

    def _compose(self, state: Any, *arguments: str) -> None:
        environment = {
            **os.environ,
            "SERVICES_DATABASE_PORT": str(state.database_port),
            "SERVICES_DATABASE_PASSWORD": state.database_password,
            "SERVICES_BROKER_PORT": str(state.broker_port),
            "SERVICES_BROKER_PASSWORD": state.broker_password,
        }
        command = ["docker", "compose", "-p", state.instance, "-f", str(self._file), *arguments]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=600, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise ServicesError(f"docker compose failed: {exc}") from exc
        if done.returncode != 0:
            raise ServicesError(f"docker compose failed: {done.stderr.strip()[-2000:]}")
