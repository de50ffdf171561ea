"""From a line of input to the items of a message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from chargewatch.wire.envelope import MAX_DEPTH
from chargewatch.wire.kinds import Kind, kind_named, kind_of_item

MAX_ITEM_DEPTH = MAX_DEPTH - 2
"""An item lies in a list in an object."""

MAX_ITEM_BYTES = 1_000_000
"""Leaves room for the envelope within 1 MiB."""

_OWN_STATUS = frozenset({"topic", "seq", "sent_at", "online", "backlog"})


class LineError(ValueError):
    """A line can't be sent: what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Item:
    """One reading, session or event, as JSON."""

    kind: Kind
    body: bytes


@dataclass(frozen=True, slots=True)
class LineContent:
    """What a line holds: items, or what is to be told with the status."""

    items: tuple[Item, ...] = ()
    status: Mapping[str, Any] | None = None


def read_line(line: bytes) -> LineContent:
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
    kind = _kind_of(document)
    list_key = kind.facts.list_key
    if list_key is None:
        told = {key: value for key, value in document.items() if key not in _OWN_STATUS}
        return LineContent(status=told)
    listed = document.get(list_key, [document])
    if type(listed) is not list:
        raise LineError(f"{list_key} is not a list")
    return LineContent(items=tuple(_item(kind, entry) for entry in listed))


def _item(kind: Kind, entry: Any) -> Item:
    try:
        body = orjson.dumps(entry)
    except orjson.JSONEncodeError as exc:
        raise LineError(f"can't be written as JSON: {exc}") from None
    if len(body) > MAX_ITEM_BYTES:
        raise LineError(f"an item of {len(body)} bytes: a message holds at most 1 MiB")
    return Item(kind, body)


def _kind_of(document: dict[str, Any]) -> Kind:
    """Return what a line holds, and take its topic out."""
    told = document.pop("topic", None)
    kind = kind_named(told) if told else kind_of_item(document)
    if kind is not None:
        return kind
    if not told:
        raise LineError('can\'t tell what it is: give "topic"')
    *others, last = Kind
    raise LineError(f"unknown topic {told!r}: use {', '.join(others)} or {last}")


def _check_depth(document: Any) -> None:
    level, depth = [document], 0
    while level:
        depth += 1
        if depth > MAX_ITEM_DEPTH:
            raise LineError(f"nested deeper than {MAX_ITEM_DEPTH}")
        inner: list[Any] = []
        for value in level:
            inside = value.values() if type(value) is dict else value
            inner += [entry for entry in inside if type(entry) in (dict, list)]
        level = inner
