"""`chargewatch serve` and `chargewatch user` as real commands."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from typing import Any

import pytest


def json_of(done: Any) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_user_is_made_listed_and_disabled(database_url: str, run_command: Any) -> None:
    env = {"CHARGEWATCH_DATABASE_URL": database_url}
    made = json_of(run_command("user", "add", "wang", "--role", "inspector", "--json", env=env))
    assert len(made["password"]) >= 20
    assert made["role"] == "inspector"
    again = run_command("user", "add", "wang", "--role", "inspector", env=env)
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert made["password"] not in run_command("user", "list", "--json", env=env).stdout
    assert run_command("user", "disable", "wang", env=env).returncode == 0
    rows = json_of(run_command("user", "list", "--json", env=env))
    assert [(row["username"], row["disabled"]) for row in rows] == [("wang", True)]


def test_password_is_read_from_stdin(database_url: str, run_command: Any) -> None:
    env = {"CHARGEWATCH_DATABASE_URL": database_url}
    arguments = ("user", "add", "li", "--role", "supervisor", "--password-stdin", "--json")
    made = json_of(run_command(*arguments, env=env, stdin="a-long-enough-one\n"))
    assert made == {"username": "li", "role": "supervisor", "operator_id": None}
    short = run_command(*arguments, env=env, stdin="short\n")
    assert short.returncode == 1
    assert "shorter than" in short.stderr


def test_wrong_usage_exits_with_2(database_url: str, run_command: Any) -> None:
    env = {"CHARGEWATCH_DATABASE_URL": database_url}
    assert run_command("user", "add", "li", "--role", "king", env=env).returncode == 2


def test_token_needs_a_registered_operator(database_url: str, run_command: Any) -> None:
    env = {"CHARGEWATCH_DATABASE_URL": database_url}
    done = run_command("user", "token", "NOBODY", env=env)
    assert done.returncode == 1
    assert "chargewatch registry import" in done.stderr


@pytest.fixture
def taken_port() -> Any:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_taken_port_is_named(database_url: str, run_command: Any, taken_port: int) -> None:
    env = {"CHARGEWATCH_DATABASE_URL": database_url}
    done = run_command("serve", "--port", str(taken_port), env=env)
    assert done.returncode == 1
    assert f"port {taken_port}" in done.stderr
    assert "--port" in done.stderr


def test_old_schema_is_refused_with_the_next_step(
    empty_database_url: str, run_command: Any
) -> None:
    env = {"CHARGEWATCH_DATABASE_URL": empty_database_url}
    done = run_command("serve", "--port", "0", env=env)
    assert done.returncode == 1
    assert "chargewatch migrate" in done.stderr


def test_server_answers_and_stops_on_a_signal(database_url: str) -> None:
    env = {**os.environ, "CHARGEWATCH_DATABASE_URL": database_url}
    command = [sys.executable, "-m", "chargewatch", "serve", "--port", "0"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = None
            started = time.monotonic()
            while found is None and time.monotonic() - started < 60:
                found = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
            assert found is not None
            with urllib.request.urlopen(found[0] + "/api/v1/health", timeout=30) as answer:
                assert json.load(answer)["status"] == "ok"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
