"""Logs for machines: one JSON object a line, with the event's name and fields."""

from __future__ import annotations

import ast
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from chargewatch import logs

SOURCE = Path(__file__).resolve().parents[2] / "src" / "chargewatch"
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
EVENT = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*[:;,]?( .*)?", re.DOTALL)


def line_of(message: str, *arguments: Any, name: str = "chargewatch.x", **more: Any) -> Any:
    record = logging.LogRecord(name, logging.INFO, "f", 1, message, arguments, None, **more)
    text = logs.JsonLines().format(record)
    assert "\n" not in text
    return json.loads(text)


def test_event_and_fields_stand_apart() -> None:
    line = line_of("batch_stored messages=%d seconds=%.1f station=%s", 7, 0.25, "a b\nc=1")
    assert (line["event"], line["messages"], line["seconds"]) == ("batch_stored", 7, 0.25)
    assert line["station"] == "a b\nc=1"
    assert line["message"] == "batch_stored messages=7 seconds=0.2 station=a b\nc=1"
    assert (line["level"], line["logger"]) == ("info", "chargewatch.x")
    assert line["at"].endswith("+00:00")


@pytest.mark.parametrize(
    ("message", "arguments", "fields"),
    [
        ("session_lost: the broker has forgotten it", (), {"event": "session_lost"}),
        ("refused reason=0x%02x; let it", (135,), {"event": "refused", "reason": 135}),
        ("left id=%s: taking %d of 100%%", ("a", 3), {"event": "left", "id": "a"}),
        ("failed error=%s", (ValueError("no"),), {"event": "failed", "error": "no"}),
        ("odd event=%s value=%s", ("x", float("nan")), {"event": "odd", "value": None}),
    ],
)
def test_every_form_of_event_is_read(
    message: str, arguments: tuple[Any, ...], fields: dict[str, Any]
) -> None:
    assert line_of(message, *arguments).items() >= fields.items()


def test_what_a_library_says_is_a_message_without_an_event() -> None:
    line = line_of("Started server process [%d]", 7, name="uvicorn.error")
    assert (line["event"], line["message"]) == ("log", "Started server process [7]")


def test_an_exception_is_part_of_its_line() -> None:
    try:
        raise ValueError("no\nsuch")
    except ValueError as exc:
        record = logging.LogRecord(
            "chargewatch", logging.ERROR, "f", 1, "failed", (), (type(exc), exc, exc.__traceback__)
        )
    line = json.loads(logs.JsonLines().format(record))
    assert "ValueError: no\nsuch" in line["exception"]


def test_every_log_line_of_the_source_is_an_event_with_fields() -> None:
    found = 0
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in {"log", "logger"}
            ):
                found += 1
                message = node.args[0]
                place = f"{path.name}:{node.lineno}"
                assert isinstance(message, ast.Constant), f"{place}: fields go by %s"
                assert EVENT.fullmatch(message.value), f"{place}: {message.value}"
                assert not re.search(r"\b(at|level|logger|event)=", message.value), place
    assert found > 20
