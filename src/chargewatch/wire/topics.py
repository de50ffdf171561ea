"""Topics of the telemetry contract: cw/v1/{operator_id}/{station_id}/{kind}."""

from __future__ import annotations

from dataclasses import dataclass

from chargewatch.domain.identity import is_identity
from chargewatch.wire.kinds import Kind, kind_named

ROOT = "cw/v1"
RECEIPT = "receipt"


@dataclass(frozen=True, slots=True)
class Topic:
    """Who speaks and about what; the authority on a message's identity."""

    operator_id: str
    station_id: str
    kind: Kind


def topic(operator_id: str, station_id: str, kind: str) -> str:
    """Return the topic of a station's messages of one kind."""
    return f"{ROOT}/{operator_id}/{station_id}/{kind}"


def parse_topic(text: str) -> Topic | None:
    """Return operator, station and kind of a topic; None when it isn't one of the contract's."""
    parts = text.split("/")
    if len(parts) != 5 or parts[0] != "cw" or parts[1] != "v1":
        return None
    kind = kind_named(parts[4])
    if kind is None or not (is_identity(parts[2]) and is_identity(parts[3])):
        return None
    return Topic(parts[2], parts[3], kind)


def filters(operator_id: str = "+", station_id: str = "+") -> list[str]:
    """Return the topic filters of everything that a station's gateway sends."""
    return [topic(operator_id, station_id, kind) for kind in Kind]


def is_retained(text: str) -> bool:
    """Return whether messages of a topic are published as retained."""
    kind = kind_named(text.rpartition("/")[2])
    return kind is not None and kind.facts.retained


def has_receipt(text: str) -> bool:
    """Return whether the platform answers messages of a topic; of others than its own, it might."""
    kind = kind_named(text.rpartition("/")[2])
    return kind is None or kind.facts.has_receipt
