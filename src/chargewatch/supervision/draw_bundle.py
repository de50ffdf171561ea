"""The file of a draw: the frozen list, the throws and what was drawn, to be verified offline."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from cryptography.x509 import Certificate
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from chargewatch.draws.draw import Drawn, Throw, drawn, seed_of
from chargewatch.draws.frame import DrawError, Frame, list_hash, read_frame
from chargewatch.draws.sequential import Stand, stand
from chargewatch.draws.tickets import uniform_order
from chargewatch.errors import InputFileError
from chargewatch.supervision.timestamp import TimestampError, looked_at

LARGEST_FILE = 1 << 30

Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ThrowRow(_Strict):
    """The dice of one witness."""

    witness: str = Field(min_length=1, max_length=200)
    digits: str = Field(max_length=200)
    at: AwareDatetime


class DrawnRow(_Strict):
    """A pile that was drawn, with the figures that drew it."""

    rank: int
    pile: str
    operator: str
    station: str
    part: Literal["uniform", "weighted"]
    ticket: Hash
    key: str
    inspectors: tuple[str, ...]


class DrawBundle(_Strict):
    """Everything that a stranger needs to make the draw again."""

    format: Literal["chargewatch draw 1"]
    list_text: str
    list_sha256: Hash
    published_at: AwareDatetime = Field(description="When the list's hash was made public.")
    timestamp: str = Field(
        default="",
        max_length=200_000,
        description="RFC 3161 answer over the list's text, base64",
    )
    throws: tuple[ThrowRow, ...]
    beacon_source: str = Field(
        default="",
        max_length=500,
        description="public randomness that was announced with the hash",
    )
    beacon: str = Field(default="", max_length=500, description="its value")
    seed: str
    size: int
    drawn: tuple[DrawnRow, ...]


@dataclass(frozen=True, kw_only=True)
class DrawCheck:
    """One thing that was looked at."""

    name: str
    holds: bool
    detail: str


def _rows(found: list[Drawn]) -> tuple[DrawnRow, ...]:
    return tuple(
        DrawnRow(
            rank=one.rank,
            pile=one.pile.name,
            operator=one.pile.operator,
            station=one.pile.station,
            part="uniform" if one.uniform else "weighted",
            ticket=one.ticket,
            key=one.key,
            inspectors=one.inspectors,
        )
        for one in found
    )


def _thrown(throws: tuple[ThrowRow, ...]) -> tuple[Throw, ...]:
    return tuple(Throw(witness=one.witness, digits=one.digits) for one in throws)


def make_bundle(
    list_text: str,
    *,
    published_at: datetime,
    throws: tuple[ThrowRow, ...],
    size: int,
    beacon: str = "",
    beacon_source: str = "",
    timestamp: bytes | None = None,
) -> DrawBundle:
    """Make a draw and return its file's content.

    Raises: DrawError.
    """
    frame = read_frame(list_text)
    seed = seed_of(_thrown(throws), beacon)
    return DrawBundle(
        format="chargewatch draw 1",
        list_text=list_text,
        list_sha256=list_hash(list_text),
        published_at=published_at,
        timestamp="" if timestamp is None else base64.b64encode(timestamp).decode(),
        throws=throws,
        beacon_source=beacon_source,
        beacon=beacon,
        seed=seed,
        size=size,
        drawn=_rows(drawn(frame, seed=seed, size=size)),
    )


def read_bundle(path: Path) -> DrawBundle:
    """Return the content of a draw's file.

    Raises: InputFileError that names what is wrong and where.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InputFileError(f"{path} is larger than 1 GiB: no draw's file is")
        return DrawBundle.model_validate_json(path.read_bytes())
    except OSError as exc:
        raise InputFileError(f"{path} can't be read: {exc.strerror or exc}") from exc
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputFileError(
            f"{path} is not the file of a draw: {where}: {first['msg']}; "
            f"`chargewatch draw make` writes one"
        ) from exc


def bundle_text(bundle: DrawBundle) -> str:
    """Return the content of a draw's file as it is published."""
    return json.dumps(bundle.model_dump(mode="json"), ensure_ascii=False, indent=1) + "\n"


def verify_bundle(
    bundle: DrawBundle,
    *,
    published: str | None = None,
    authority: tuple[Certificate, ...] = (),
) -> list[DrawCheck]:
    """Return what holds of a draw's file and what doesn't, computed anew from list and throws.

    Args:
        bundle: the file's content.
        published: the list's hash as the verifier saw it before the throw; None: not known.
        authority: certificates of the time-stamp authority; without, its signature is not looked
            at.
    """
    checks = [_hash_check(bundle)]
    if published is not None:
        same = published.strip().lower() == bundle.list_sha256
        detail = "as you saw it" if same else f"you saw {published}, the file has another list"
        checks.append(DrawCheck(name="published hash", holds=same, detail=detail))
    frame = _frame_check(bundle, checks)
    if frame is not None:
        checks.append(_order_check(bundle, frame))
    if bundle.timestamp or authority:
        checks.append(_timestamp_check(bundle, authority))
    seed = _seed_check(bundle, checks)
    if frame is not None and seed is not None:
        checks.append(_drawn_check(bundle, frame, seed))
    return checks


def _hash_check(bundle: DrawBundle) -> DrawCheck:
    found = list_hash(bundle.list_text)
    holds = found == bundle.list_sha256
    detail = found if holds else f"the list has {found}, the file says {bundle.list_sha256}"
    return DrawCheck(name="hash of the list", holds=holds, detail=detail)


def _frame_check(bundle: DrawBundle, checks: list[DrawCheck]) -> Frame | None:
    try:
        frame = read_frame(bundle.list_text)
    except DrawError as exc:
        checks.append(DrawCheck(name="list", holds=False, detail=str(exc)))
        return None
    detail = f"{len(frame.piles)} piles, {len(frame.inspectors)} inspectors"
    checks.append(DrawCheck(name="list", holds=True, detail=detail))
    return frame


def _order_check(bundle: DrawBundle, frame: Frame) -> DrawCheck:
    """DrawCheck that the list was frozen, then published, then the dice were thrown."""
    times = [frame.frozen_at, bundle.published_at, *(one.at for one in bundle.throws)]
    first = min(times[2:], default=times[1])
    holds = times[0] <= times[1] < first
    detail = (
        f"frozen {times[0].isoformat()}, published {times[1].isoformat()}, "
        f"first throw {first.isoformat()}"
    )
    return DrawCheck(name="list before seed", holds=holds, detail=detail)


def _timestamp_check(bundle: DrawBundle, authority: tuple[Certificate, ...]) -> DrawCheck:
    """DrawCheck that a third party saw this list before the first throw."""
    name = "time stamp"
    if not bundle.timestamp:
        return DrawCheck(name=name, holds=False, detail="the file holds none")
    try:
        token = base64.b64decode(bundle.timestamp, validate=True)
        found = looked_at(token, bundle.list_text, roots=authority)
    except (ValueError, TimestampError) as exc:
        return DrawCheck(name=name, holds=False, detail=str(exc))
    by = f" by {found.authority}" if found.authority else ""
    detail = f"{found.at.isoformat()}{by}"
    first = min((one.at for one in bundle.throws), default=None)
    if first is not None and found.at >= first:
        return DrawCheck(name=name, holds=False, detail=f"{detail}: not before the first throw")
    if not found.verified:
        detail += "; its signature was not verified: give --tsa-certificate"
    return DrawCheck(name=name, holds=True, detail=detail)


def _seed_check(bundle: DrawBundle, checks: list[DrawCheck]) -> str | None:
    try:
        seed = seed_of(_thrown(bundle.throws), bundle.beacon)
    except DrawError as exc:
        checks.append(DrawCheck(name="seed", holds=False, detail=str(exc)))
        return None
    holds = seed == bundle.seed
    detail = seed if holds else f"the throws make {seed}, the file says {bundle.seed}"
    checks.append(DrawCheck(name="seed", holds=holds, detail=detail))
    return seed


def _drawn_check(bundle: DrawBundle, frame: Frame, seed: str) -> DrawCheck:
    name = "piles and inspectors drawn"
    try:
        rows = _rows(drawn(frame, seed=seed, size=bundle.size))
    except DrawError as exc:
        return DrawCheck(name=name, holds=False, detail=str(exc))
    for mine, told in zip(rows, bundle.drawn, strict=False):
        if mine != told:
            what = next(f for f in DrawnRow.model_fields if getattr(mine, f) != getattr(told, f))
            detail = (
                f"at rank {mine.rank} the draw gives {what} {getattr(mine, what)}, "
                f"the file says {getattr(told, what)}"
            )
            return DrawCheck(name=name, holds=False, detail=detail)
    if len(rows) != len(bundle.drawn):
        detail = f"the draw gives {len(rows)} piles, the file holds {len(bundle.drawn)}"
        return DrawCheck(name=name, holds=False, detail=detail)
    return DrawCheck(name=name, holds=True, detail=f"all {len(rows)} as computed anew")


def lot_stand(
    bundle: DrawBundle, nonconforming: Mapping[str, bool | None], *, conforming: float
) -> Stand:
    """Return where a risk-limiting inspection by a draw stands.

    Only the uniform part counts, in the order of its tickets, up to the first pile without a
    result: what is inspected first by choice, or drawn first for its weight, would bias it.

    Args:
        bundle: the draw.
        nonconforming: by pile, whether it was found so; None: will never be known.
        conforming: share of the list that the claim says conforms.

    Raises: DrawError for a result of a pile that was not drawn.
    """
    drawn_piles = {row.pile for row in bundle.drawn}
    unknown = next((name for name in nonconforming if name not in drawn_piles), None)
    if unknown is not None:
        raise DrawError(f"{unknown} has a result and was not drawn")
    uniform = [row for row in bundle.drawn if row.part == "uniform"]
    results: list[bool | None] = []
    for row in sorted(uniform, key=lambda one: uniform_order(one.pile, one.ticket)):
        if row.pile not in nonconforming:
            break
        results.append(nonconforming[row.pile])
    return stand(results, lot=len(read_frame(bundle.list_text).piles), conforming=conforming)
