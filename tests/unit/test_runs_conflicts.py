"""A risk run finds the items that conflict in what quarantine kept of their messages."""

from __future__ import annotations

import gzip
from typing import Any

import orjson
import pytest

from chargewatch.runs.find_station_signals import _conflicting_items

READINGS = [{"connector": f"C{k}", "at": f"2026-03-01T00:0{k}:00Z"} for k in range(3)]
MESSAGE = orjson.dumps({"seq": 1, "readings": READINGS})
ERRORS = [
    {"index": 2, "code": "conflict", "detail": "two"},
    {"index": 0, "code": "naive_time", "detail": "not one"},
    {"index": 9, "code": "conflict", "detail": "beyond"},
]


def row(payload: bytes, content_type: str | None = None, errors: Any = ERRORS) -> dict[str, Any]:
    return {"payload": payload, "content_type": content_type, "errors": orjson.dumps(errors)}


@pytest.mark.parametrize(
    "kept",
    [
        row(MESSAGE),
        row(gzip.compress(MESSAGE), "application/json+gzip"),
        row(gzip.compress(MESSAGE)),
    ],
    ids=["plain", "gzip", "gzip without its type"],
)
def test_items_are_found_by_their_place(kept: dict[str, Any]) -> None:
    assert _conflicting_items(kept) == [(READINGS[2], "two"), ({}, "beyond")]


def test_rows_of_an_older_version_hold_the_item_itself() -> None:
    assert _conflicting_items(row(orjson.dumps(READINGS[2]), None, ERRORS[:1])) == [
        (READINGS[2], "two")
    ]


def test_bytes_that_can_not_be_read_are_a_conflict_without_an_item() -> None:
    assert _conflicting_items(row(b"{", None, ERRORS[:1])) == [({}, "two")]
