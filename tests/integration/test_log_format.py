"""With CHARGEWATCH_LOG_FORMAT=json every line on stderr of a service is one JSON object."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from typing import Any

from chargewatch.local.broker import EmbeddedBroker


def lines_of(text: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert {"at", "level", "logger", "event", "message"} <= set(line)
    return lines


def test_services_log_one_object_a_line(
    database_url: str, broker: EmbeddedBroker, run_command: Any
) -> None:
    env = {
        "CHARGEWATCH_DATABASE_URL": database_url,
        "CHARGEWATCH_MQTT_URL": broker.url,
        "CHARGEWATCH_LOG_FORMAT": "json",
    }
    done = run_command("ingest", "--until-idle", "0.5", env=env)
    assert done.returncode == 0, done.stderr
    lines = lines_of(done.stderr)
    [subscribed] = [line for line in lines if line["event"] == "subscribed"]
    assert "cw/v1/+/+/registers" in subscribed["filters"]
    assert lines[-1]["event"] == "progress"

    # Nothing is registered yet: whether that is an error or an empty run, it is told in JSON.
    done = run_command("assess", env=env)
    lines = lines_of(done.stderr)
    assert lines[-1]["event"] == ("command_failed" if done.returncode else "risk_run_finished")

    done = run_command("assess", env={**env, "CHARGEWATCH_DATABASE_URL": "mysql://x"})
    assert done.returncode == 1
    [failed] = lines_of(done.stderr)
    assert (failed["event"], failed["level"]) == ("command_failed", "error")
    assert "not a PostgreSQL address" in failed["error"]

    command = [sys.executable, "-m", "chargewatch", "serve", "--port", "0"]
    with subprocess.Popen(
        command, env={**os.environ, **env}, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            first = process.stderr.readline()
            address = lines_of(first)[0]["message"].partition(" serves on ")[2].split()[0]
            with urllib.request.urlopen(address + "/api/v1/health", timeout=30) as answer:
                assert json.load(answer)["status"] == "ok"
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
    assert lines_of(rest)
