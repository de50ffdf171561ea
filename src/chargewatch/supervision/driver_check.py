"""What a driver's signed record proves, and whether the session that was stored agrees with it.

A record is compared with a stored session only when it is genuine under the key that the register
has of the pile: only the meter can have made such a record, and its holder is the one who charged.
Otherwise anybody could ask by made-up records who charged when, and how much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.signing_key import SigningKey, SigningKeyError, read_signing_key
from chargewatch.domain.times import EPOCH
from chargewatch.storage.office import complaints as complaint_rows
from chargewatch.supervision.driver_file import DriverRecord
from chargewatch.supervision.ocmf import Genuine, OcmfReading, verify
from chargewatch.supervision.ocmf_checks import (
    CLOCK_TOLERANCE_S,
    Facts,
    State,
    check_records,
    energies,
)

LOOK_AROUND = timedelta(seconds=CLOCK_TOLERANCE_S["I"])
"""Sessions that ended so near a record's end are compared with it."""


class SignatureProof(StrEnum):
    """What the signatures of all records prove together."""

    GENUINE = "genuine"  # the key that is registered for the pile made them
    FORGED = "forged"  # they fit neither that key nor another one that came along
    OTHER_KEY = "other_key"  # made by another key than the registered one
    FITS_KEY = "fits_key"  # nothing is registered; they fit the key that came along
    MISFIT = "misfit"  # nothing is registered; they don't fit the key that came along
    NO_KEY = "no_key"
    NO_CURVE = "no_curve"  # the key's curve can't be computed here


class Agreement(StrEnum):
    """Whether the session that was stored for the pile agrees with the record."""

    AGREES = "agrees"
    DIFFERS = "differs"
    NOT_FOUND = "not_found"
    NOT_ASKED = "not_asked"  # no pile was named, or the record isn't proved to be of its meter
    NO_CLOCK = "no_clock"  # the meter's clock was not set: nothing to find the session by


@dataclass(frozen=True, kw_only=True)
class ToldRecord:
    """What one record says, as its meter wrote it."""

    meter_serial: str
    gateway_serial: str
    charge_point: str
    pagination: int | None
    readings: tuple[OcmfReading, ...]
    proof: SignatureProof


@dataclass(frozen=True, kw_only=True)
class DriverCheck:
    """What all records say together, and what they prove."""

    records: tuple[ToldRecord, ...]
    proof: SignatureProof
    energy_wh: Decimal | None  # between begin and end; None when one of them is missing
    begun_at: str
    ended_at: str
    usable: bool  # the meter itself says that the energy may be billed


def readable_key(text: str) -> SigningKey | None:
    """Return the key that a text holds; None for an empty one.

    Raises: SigningKeyError that says why it can't be read.
    """
    return read_signing_key(text) if text.strip() else None


def _beside(text: str) -> SigningKey | None:
    """Return the key that came along with a record; one that can't be read counts as none."""
    try:
        return readable_key(text)
    except SigningKeyError:
        return None


def _proof(
    item: DriverRecord, *, registered: SigningKey | None, given: SigningKey | None
) -> SignatureProof:
    other = given or _beside(item.key)
    fits_other = None if other is None else verify(item.record, other)[0]
    if registered is not None:
        outcome = verify(item.record, registered)[0]
        if outcome is Genuine.NO:
            return SignatureProof.OTHER_KEY if fits_other is Genuine.YES else SignatureProof.FORGED
        return SignatureProof.GENUINE if outcome is Genuine.YES else SignatureProof.NO_CURVE
    if fits_other is None:
        return SignatureProof.NO_KEY
    by_other = {Genuine.YES: SignatureProof.FITS_KEY, Genuine.NO: SignatureProof.MISFIT}
    return by_other.get(fits_other, SignatureProof.NO_CURVE)


_WORST_FIRST = tuple(
    map(SignatureProof, ("forged", "misfit", "other_key", "no_curve", "no_key", "fits_key"))
)


def check_driver_records(
    items: Sequence[DriverRecord], *, registered: str | None, given: SigningKey | None
) -> DriverCheck:
    """Return what records say and prove.

    Args:
        items: at least one record.
        registered: the key that the register has of the pile; None without.
        given: the key that the driver gave, before any that came along with the records.
    """
    known = _beside(registered or "")
    told = tuple(
        ToldRecord(
            meter_serial=item.record.meter_serial,
            gateway_serial=item.record.gateway_serial,
            charge_point=item.record.charge_point,
            pagination=item.record.pagination,
            readings=item.record.readings,
            proof=_proof(item, registered=known, given=given),
        )
        for item in items
    )
    proofs = {one.proof for one in told}
    proof = next((one for one in _WORST_FIRST if one in proofs), SignatureProof.GENUINE)
    readings = [reading for one in told for reading in one.readings]
    pairs = list(energies(readings).values())
    begun, ended = pairs[0] if pairs else (None, None)
    energy = None
    if begun and ended and begun.energy_wh is not None and ended.energy_wh is not None:
        energy = ended.energy_wh - begun.energy_wh
    return DriverCheck(
        records=told,
        proof=proof,
        energy_wh=energy,
        begun_at=begun.at_text if begun else "",
        ended_at=ended.at_text if ended else "",
        usable=all(reading.usable for reading in readings),
    )


async def agreement(
    connection: AsyncConnection,
    items: Sequence[DriverRecord],
    check: DriverCheck,
    pile: Mapping[Any, Any],
) -> Agreement:
    """Return whether a stored session of a registered connector agrees with genuine records.

    pile: connector_id, connector, signing_key and resolution_wh of the registered connector.
    """
    if check.proof is not SignatureProof.GENUINE:
        return Agreement.NOT_ASKED
    readings = [reading for one in check.records for reading in one.readings]
    ends = [end for _, end in energies(readings).values()]
    ended_s = next((e.at_s for e in ends if e.clock in CLOCK_TOLERANCE_S), None)
    if ended_s is None:
        return Agreement.NO_CLOCK
    try:
        ended = EPOCH + timedelta(seconds=ended_s)
        since, until = ended - LOOK_AROUND, ended + LOOK_AROUND
    except OverflowError:
        return Agreement.NOT_FOUND
    sessions = await complaint_rows.sessions_near(
        connection, pile["connector_id"], since=since, until=until
    )
    found = Agreement.NOT_FOUND
    text = "\n".join(dict.fromkeys(item.text for item in items))
    for session in sessions:
        checks = check_records(
            text,
            Facts(
                start_wh=session["start_wh"],
                stop_wh=session["stop_wh"],
                started_s=_seconds(session["started_at"]),
                ended_s=_seconds(session["ended_at"]),
                resolution_wh=pile["resolution_wh"] or 1.0,
                registered_key=pile["signing_key"],
                connector=pile["connector"],
                meters={},
            ),
        )
        states = {checks.of("register").state, checks.of("clock").state}
        if states == {State.OK}:
            return Agreement.AGREES
        # Another charge of the same hour tells nothing: only one that its times fit can differ.
        if checks.of("clock").state is State.OK:
            found = Agreement.DIFFERS
    return found


def _seconds(moment: datetime) -> float:
    return (moment - EPOCH).total_seconds()
