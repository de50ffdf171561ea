"""What the quarantine gets of a batch, and what is booked of messages that are read again."""

from __future__ import annotations

import hashlib
import logging

from chargewatch.domain.times import moment_of
from chargewatch.ingest.batch import Batch
from chargewatch.ingest.identities import Identities
from chargewatch.ingest.message import Fate, Message
from chargewatch.storage.intake import faults
from chargewatch.storage.intake.ledger import LedgerEntry
from chargewatch.storage.intake.quarantine import MOST_ERRORS, QuarantineRow, ReplayRow
from chargewatch.wire.evidence import message_evidence
from chargewatch.wire.personal import bytes_without_vin
from chargewatch.wire.rejection import INTERNAL_ERROR

log = logging.getLogger("chargewatch.ingest")


def quarantine_rows(batch: Batch, identities: Identities) -> list[QuarantineRow]:
    """Return one row for every message of which something was rejected for the first time."""
    return [
        _row(message, fate, identities)
        for message, fate in zip(batch.messages, batch.fates, strict=True)
        if fate.rejections and message.kept is None
    ]


def _row(message: Message, fate: Fate, identities: Identities) -> QuarantineRow:
    arrival, topic = message.arrival, message.topic
    payload, content_type = _kept_bytes(message)
    codes = list(dict.fromkeys(rejection.code for rejection in fate.rejections))
    reasons = f"{arrival.topic} {fate.rejected} {' '.join(codes)} {arrival.content_type}"
    digest = hashlib.blake2b(reasons.encode("utf-8", "backslashreplace"), digest_size=16)
    digest.update(arrival.payload)
    registered = topic is not None and identities.is_registered(message.owner)
    return QuarantineRow(
        moment_of(arrival.received_us),
        arrival.topic,
        topic.operator_id if topic else None,
        topic.station_id if topic else None,
        message.seq,
        [(r.index, r.code, r.detail) for r in fate.rejections[:MOST_ERRORS]],
        codes,
        payload,
        content_type,
        fate.rejected,
        digest.digest(),
        quota_station=message.owner[1] if registered else "",
        # It must be there to be read again.
        exempt=INTERNAL_ERROR in codes,
    )


def _kept_bytes(message: Message) -> tuple[bytes, str | None]:
    """Return the bytes to keep of a message; whatever goes wrong, something is kept."""
    arrival = message.arrival
    try:
        return message_evidence(arrival.payload, arrival.content_type)
    except Exception as exc:
        if faults.is_environment(exc):
            raise
        log.exception("evidence_failed topic=%s: its bytes are kept", arrival.topic)
        return bytes_without_vin(arrival.payload), arrival.content_type


def stays(message: Message, fate: Fate) -> bool:
    """Return whether a message that was read again stays in quarantine as it was."""
    return message.kept is not None and fate.whole_code in {message.kept.code, INTERNAL_ERROR}


def ledger_entries(batch: Batch) -> list[LedgerEntry]:
    """Return what is booked: of a message that is read again only the difference."""
    entries = []
    for message, fate in zip(batch.messages, batch.fates, strict=True):
        if message.topic is None or stays(message, fate):
            continue
        decoded = message.decoded
        entries.append(
            LedgerEntry(
                (*message.owner, message.topic.kind),
                message.arrival.received_us,
                message.seq,
                decoded.envelope.sent_at_us if decoded is not None else None,
                fate.stored,
                fate.duplicate,
                fate.rejected - (message.kept.rejected if message.kept is not None else 0),
                decoded.unknown_keys if decoded is not None else 0,
                decoded.rounded if decoded is not None else 0,
            )
        )
    return entries


def replay_rows(batch: Batch) -> list[ReplayRow]:
    """Return what became of messages that are read again."""
    return [
        ReplayRow(
            message.kept.quarantine_id,
            fate.stored,
            fate.duplicate,
            fate.rejected,
            [(r.index, r.code, r.detail) for r in fate.rejections[:MOST_ERRORS]],
        )
        for message, fate in zip(batch.messages, batch.fates, strict=True)
        if message.kept is not None and not stays(message, fate)
    ]
