"""Logs on stderr: lines for people, or one JSON object a line for machines.

An event is written as its name and fields, `log.info("session_ended client_id=%s", client_id)`; the
JSON holds both apart.
"""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

from chargewatch.settings import Settings

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"

# A conversion of the printf kind, and the field's name where one stands before it.
_CONVERSION = re.compile(r"(?:(\w+)=(?:0x)?)?%(?:(%)|[-#0 +]*\d*(?:\.\d+)?[a-zA-Z])")
_OWN = ("at", "level", "logger", "event")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the named values of an event."""
    values = list(record.args) if isinstance(record.args, tuple) else []
    found: dict[str, Any] = {}
    for match in _CONVERSION.finditer(str(record.msg)):
        if match[2] or not values:
            continue
        value = values.pop(0)
        if match[1] and match[1] not in _OWN:
            plain = value is None or isinstance(value, (bool, int, float, str, datetime))
            found[match[1]] = value if plain else str(value)
    return found


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, logger, event, the event's fields, message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        own = record.name.split(".")[0] == "chargewatch"
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            # What a library says has no event of ours.
            "event": str(record.msg).split()[0].rstrip(":;,") if own and record.msg else "log",
            **(_fields(record) if own else {}),
        }
        line.setdefault("message", record.getMessage())
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS)
        return text.decode()


def configure(settings: Settings) -> None:
    """Send the logs of this process to stderr as the settings want them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if settings.log_format == "json" else logging.Formatter(TEXT))
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.captureWarnings(settings.log_format == "json")


def are_json() -> bool:
    """Return whether stderr is for machines: every line on it is then a JSON object."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.root.handlers)
