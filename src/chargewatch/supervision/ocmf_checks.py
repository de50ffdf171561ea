"""What the signed records of a session prove: a verdict by check, never one yes or no.

Only a wrong signature under the registered key proves that somebody changed a record. The other
checks compare a genuine record with the session that carries it: a record can be genuine and of
another charge.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from chargewatch.domain import signed_words as words
from chargewatch.domain.signing_key import SigningKey, SigningKeyError, read_signing_key
from chargewatch.supervision.ocmf import (
    Genuine,
    OcmfError,
    OcmfReading,
    OcmfRecord,
    read_records,
    verify,
)

CLOCK_TOLERANCE_S = {"S": 180.0, "I": 3_600.0}
"""How far a synchronised and an informative clock of a meter may be from the session's, s."""
ROUNDING_WH = Decimal(1)
_END_KINDS = tuple("ELRAP")


class State(StrEnum):
    """Outcome of one check."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class RecordCheck:
    """One check: signature, key, schema, identity, register or clock."""

    name: str
    state: State
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What session and registry say, to compare the records with."""

    start_wh: float
    stop_wh: float
    started_s: float
    ended_s: float
    resolution_wh: float = 1.0
    registered_key: str | None = None
    told_key: str | None = None
    connector: str = ""
    meters: Mapping[str, frozenset[str]]
    """Connectors by the serial number that the registry has of them (`plain_serial`)."""


@dataclass(frozen=True)
class SignedVerdict:
    """All checks of a session's records, and what later sessions are compared with."""

    checks: tuple[RecordCheck, ...]
    first: int  # counter of the first record; -1: it has none
    last: int
    counter: str  # which counter: its context, and the gateway or meter that counts
    digests: tuple[bytes, ...]

    def of(self, name: str) -> RecordCheck:
        """Return a check by its name."""
        return next(check for check in self.checks if check.name == name)

    @property
    def is_forged(self) -> bool:
        """Whether a record was changed after the registered meter signed it."""
        return self.of("signature").state is State.FAILED

    @property
    def failed(self) -> tuple[RecordCheck, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.state is State.FAILED)


def plain_serial(text: str | None) -> str:
    """Return a serial number without blanks, signs, case and leading zeros."""
    return re.sub(r"[^0-9A-Z]", "", (text or "").upper()).lstrip("0")


def check_records(text: str, facts: Facts) -> SignedVerdict:
    """Return what the records of a session prove."""
    try:
        records = read_records(text)
    except OcmfError as exc:
        return _unreadable(str(exc))
    numbers = [r.pagination for r in records if r.pagination is not None]
    readings = [reading for record in records for reading in record.readings]
    signature, key = _signature(records, facts)
    checks = (
        RecordCheck("schema", State.OK),
        signature,
        key,
        _identity(records, facts),
        _register(readings, facts),
        _clock(readings, facts),
    )
    counted = next((r for r in records if r.pagination is not None), None)
    return SignedVerdict(
        checks,
        min(numbers, default=-1),
        max(numbers, default=-1),
        "" if counted is None else _counter_of(counted),
        tuple(record.digest for record in records),
    )


def _unreadable(reason: str) -> SignedVerdict:
    unknown = ("signature", "key", "identity", "register", "clock")
    checks = (
        RecordCheck("schema", State.FAILED, reason),
        *(RecordCheck(n, State.UNKNOWN) for n in unknown),
    )
    return SignedVerdict(checks, -1, -1, "", ())


def _counter_of(record: OcmfRecord) -> str:
    """Return which counter a record's number is of: a gateway may count for several meters."""
    return f"{record.context}|{record.gateway_serial or record.meter_serial}"


def _key(text: str | None) -> SigningKey | None:
    try:
        return read_signing_key(text) if text and text.strip() else None
    except SigningKeyError:
        return None


def _signature(records: Sequence[OcmfRecord], facts: Facts) -> tuple[RecordCheck, RecordCheck]:
    """Return the checks of signature and key.

    The registered key decides. Without one a record is held against the key that came with it,
    which proves no more than that record and key belong together.
    """
    registered = _key(facts.registered_key)
    told = _key(facts.told_key or next((r.own_key for r in records if r.own_key), None))
    if registered is not None:
        key = RecordCheck("key", State.OK)
        if told is not None and told.der_hex != registered.der_hex:
            key = RecordCheck("key", State.FAILED, words.OTHER_KEY())
        state, reason = _all_genuine(records, registered)
        return RecordCheck("signature", state, reason), key
    if facts.registered_key:
        key = RecordCheck("key", State.UNKNOWN, words.UNREADABLE_KEY())
    else:
        key = RecordCheck("key", State.UNKNOWN, words.NO_KEY_REGISTERED())
    if told is None:
        return RecordCheck("signature", State.UNKNOWN, words.NO_KEY()), key
    state, reason = _all_genuine(records, told)
    if state is State.FAILED:
        key = RecordCheck("key", State.FAILED, words.BY_OWN_KEY(reason=reason))
        return RecordCheck("signature", State.UNKNOWN, words.NO_KEY_REGISTERED()), key
    return RecordCheck("signature", state, reason or words.UNDER_OWN_KEY()), key


def _all_genuine(records: Sequence[OcmfRecord], key: SigningKey) -> tuple[State, str]:
    outcomes = [verify(record, key) for record in records]
    for outcome, state in ((Genuine.NO, State.FAILED), (Genuine.UNKNOWN, State.UNKNOWN)):
        for found, reason in outcomes:
            if found is outcome:
                return state, reason
    return State.OK, ""


def _identity(records: Sequence[OcmfRecord], facts: Facts) -> RecordCheck:
    """Return whether the records' meter is registered at this connector, or at another one."""
    for record in records:
        for told in (record.meter_serial, record.gateway_serial):
            owners = facts.meters.get(plain_serial(told)) if plain_serial(told) else None
            if owners and facts.connector in owners:
                return RecordCheck("identity", State.OK)
            if owners and told == record.meter_serial:
                return RecordCheck(
                    "identity",
                    State.FAILED,
                    # Not which one: it may be another operator's, and this one reads the finding.
                    words.OTHER_CONNECTOR(meter=told[:64]),
                )
    return RecordCheck("identity", State.UNKNOWN, words.NO_SERIAL())


def energies(readings: Sequence[OcmfReading]) -> dict[str, tuple[OcmfReading, OcmfReading]]:
    """Return begin and end of each register that has both, whatever order they are listed in."""
    begins: dict[str, OcmfReading] = {}
    ends: dict[str, OcmfReading] = {}
    for reading in readings:
        if reading.energy_wh is None:
            continue
        if reading.kind.startswith("B"):
            begins.setdefault(reading.obis, reading)
        elif reading.kind.startswith(_END_KINDS):
            ends[reading.obis] = reading
    return {obis: (begins[obis], ends[obis]) for obis in begins if obis in ends}


def _register(readings: Sequence[OcmfReading], facts: Facts) -> RecordCheck:
    """Return whether a signed register grew by what the session says.

    Differences only: the signed register may count from the begin of the charge where the
    protocol's is the lifetime register.
    """
    pairs = energies(readings)
    if not pairs or not math.isfinite(facts.stop_wh - facts.start_wh):
        return RecordCheck("register", State.UNKNOWN, words.NO_CHARGE())
    metered = Decimal(repr(facts.stop_wh)) - Decimal(repr(facts.start_wh))
    grown = []
    for begin, end in pairs.values():
        if begin.energy_wh is None or end.energy_wh is None:
            continue
        if not (begin.usable and end.usable):
            return RecordCheck("register", State.UNKNOWN, words.NOT_USABLE())
        step = max(begin.step_wh, end.step_wh)
        slack = 2 * (step + Decimal(repr(float(facts.resolution_wh)))) + ROUNDING_WH
        grown.append(end.energy_wh - begin.energy_wh)
        if abs(grown[-1] - metered) <= slack:
            return RecordCheck("register", State.OK)
    return RecordCheck(
        "register",
        State.FAILED,
        words.GREW_OTHERWISE(signed=_shown(grown[0]), told=_shown(metered)),
    )


def _shown(energy: Decimal) -> str:
    text = f"{energy:.3f}"
    return text.rstrip("0").rstrip(".")


def _clock(readings: Sequence[OcmfReading], facts: Facts) -> RecordCheck:
    """Return whether the records' times are those of the session, as far as their clock tells."""
    compared = 0
    for reading in readings:
        allowed = CLOCK_TOLERANCE_S.get(reading.clock)
        begins = reading.kind.startswith("B")
        if allowed is None or reading.at_s is None:
            continue
        if not (begins or reading.kind.startswith(_END_KINDS)):
            continue
        at_s = facts.started_s if begins else facts.ended_s
        compared += 1
        if abs(reading.at_s - at_s) > allowed:
            apart = words.BEGIN_APART if begins else words.END_APART
            detail = apart(at=reading.at_text[:40], off=reading.at_s - at_s)
            return RecordCheck("clock", State.FAILED, detail)
    if not compared:
        return RecordCheck("clock", State.UNKNOWN, words.NO_CLOCK())
    return RecordCheck("clock", State.OK)
