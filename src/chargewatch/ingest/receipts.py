"""Receipts of committed messages, gathered by station."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chargewatch.ingest.message import Fate, Message
from chargewatch.wire.receipts import encode_receipts, receipt
from chargewatch.wire.topics import RECEIPT, topic

MAX_RECEIPTS_A_MESSAGE = 1000


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
    messages: Sequence[Message], fates: Sequence[Fate], *, which: str
) -> list[tuple[str, bytes]]:
    """Return topic and payload for every station that gets receipts; `which` is the setting."""
    if which == "none":
        return []
    stations: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for message, fate in zip(messages, fates, strict=True):
        if message.topic is None or message.topic.kind == "status":
            continue
        if which == "errors" and not fate.rejected:
            continue
        stations.setdefault(message.owner, []).append(receipt_of(message, fate))
    return [
        (topic(*owner, RECEIPT), encode_receipts(receipts[first : first + MAX_RECEIPTS_A_MESSAGE]))
        for owner, receipts in stations.items()
        for first in range(0, len(receipts), MAX_RECEIPTS_A_MESSAGE)
    ]
