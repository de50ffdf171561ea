"""Receipts of committed messages, gathered by station."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chargewatch.ingest.message import Fate, Message
from chargewatch.wire.receipts import encode_receipts, receipt
from chargewatch.wire.topics import RECEIPT, topic

MAX_RECEIPT_BYTES = 64 << 10
"""A gateway may have little memory, and a broker may cut at a limit that it has not told."""

PACKET_OVERHEAD_BYTES = 10
"""What a PUBLISH packet takes besides its topic and payload."""


def receipt_of(message: Message, fate: Fate) -> dict[str, Any]:
    """Return the receipt of one message."""
    return receipt(
        message.topic.kind if message.topic else "",
        seq=message.seq,
        stored=fate.stored,
        duplicate=fate.duplicate,
        rejections=fate.rejections,
        rejected=fate.rejected,
    )


def receipt_messages(
    messages: Sequence[Message],
    fates: Sequence[Fate],
    *,
    which: str,
    max_packet: int | None = None,
) -> list[tuple[str, bytes]]:
    """Return topic and payload for every station that gets receipts.

    which: the setting. max_packet: the longest MQTT packet that the broker takes.
    """
    if which == "none":
        return []
    stations: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for message, fate in zip(messages, fates, strict=True):
        if message.topic is None or not message.topic.kind.facts.has_receipt:
            continue
        if which == "errors" and not fate.rejected:
            continue
        stations.setdefault(message.owner, []).append(receipt_of(message, fate))
    result = []
    for owner, receipts in stations.items():
        name = topic(*owner, RECEIPT)
        limit = MAX_RECEIPT_BYTES
        if max_packet is not None:
            limit = min(limit, max_packet - len(name) - PACKET_OVERHEAD_BYTES)
        result += [(name, payload) for payload in encode_receipts(receipts, limit=limit)]
    return result
