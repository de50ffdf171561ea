"""From a line of input to the items of a message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

LIST_KEYS = {
    "registers": "readings",
    "reference": "readings",
    "sessions": "sessions",
    "events": "events",
}
"""Topics that get receipts, and the key of each one's list."""

STATUS = "status"
MAX_DEPTH = 30
"""The contract allows 32; an item lies in a list in an object."""

MAX_ITEM_BYTES = 1_000_000
"""Leaves room for the envelope within 1 MiB."""

_OWN_STATUS = frozenset({"topic", "seq", "sent_at", "online", "backlog"})


class LineError(ValueError):
    """A line can't be sent: what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Item:
    """One reading, session or event, as JSON."""

    kind: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Content:
    """What a line holds: items, or what is to be told with the status."""

    items: tuple[Item, ...] = ()
    status: Mapping[str, Any] | None = None


def read_line(line: bytes) -> Content:
    """Return what a line of input holds.

    Either a whole list, `{"topic": "registers", "readings": [...]}`, or one item, with or without
    "topic"; without it the item's keys tell what it is.

    Raises: LineError.
    """
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError as exc:
        raise LineError(f"not JSON: {exc}") from None
    if type(document) is not dict:
        raise LineError("not a JSON object")
    _check_depth(document)
    kind = document.pop("topic", None) or _kind_of(document)
    if kind == STATUS:
        told = {key: value for key, value in document.items() if key not in _OWN_STATUS}
        return Content(status=told)
    if not isinstance(kind, str) or kind not in LIST_KEYS:
        raise LineError(f"unknown topic {kind!r}: use {', '.join(LIST_KEYS)} or {STATUS}")
    listed = document.get(LIST_KEYS[kind], [document])
    if type(listed) is not list:
        raise LineError(f"{LIST_KEYS[kind]} is not a list")
    return Content(items=tuple(_item(kind, entry) for entry in listed))


def _item(kind: str, entry: Any) -> Item:
    try:
        body = orjson.dumps(entry)
    except orjson.JSONEncodeError as exc:
        raise LineError(f"can't be written as JSON: {exc}") from None
    if len(body) > MAX_ITEM_BYTES:
        raise LineError(f"an item of {len(body)} bytes: a message holds at most 1 MiB")
    return Item(kind, body)


def _kind_of(document: Mapping[str, Any]) -> str:
    if "online" in document:
        return STATUS
    if "kind" in document:
        return "events"
    if "started_at" in document:
        return "sessions"
    if "energy_wh" in document:
        return "reference" if "meter" in document else "registers"
    raise LineError('can\'t tell what it is: give "topic"')


def _check_depth(document: Any) -> None:
    level, depth = [document], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise LineError(f"nested deeper than {MAX_DEPTH}")
        inner: list[Any] = []
        for value in level:
            inside = value.values() if type(value) is dict else value
            inner += [entry for entry in inside if type(entry) in (dict, list)]
        level = inner
