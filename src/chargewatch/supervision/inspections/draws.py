"""The steps of a draw: frozen, published, thrown, drawn, more taken, opened; each once, in order.

Every step locks the draw's row, looks at its state, changes it and enters it in the audit trail,
all in one transaction: of two people at once one comes second, and is told so.

What is public when: the list's hash from its publication on; the throws from the draw on; list and
piles once the draw is opened. The hash binds the list before the throws, so it may be shown last,
and an operator is not warned before its piles are inspected.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping

from chargewatch.draws.draw import LEAST_DIGITS_A_WITNESS
from chargewatch.draws.frame import DrawError, list_hash, listed_name, read_frame, told_name
from chargewatch.draws.plans import sampling_plan
from chargewatch.errors import NotFoundError
from chargewatch.storage.database import Database
from chargewatch.storage.office import draws as rows
from chargewatch.storage.office import inspections as inspection_rows
from chargewatch.supervision.audit import Action, Actor, record
from chargewatch.supervision.draw_bundle import (
    DrawBundle,
    DrawnRow,
    ThrowRow,
    bundle_text,
    make_bundle,
)
from chargewatch.supervision.inspections.draw_state import (
    DrawClock,
    DrawStateError,
    is_open,
    locked_draw,
    words,
)
from chargewatch.supervision.inspections.eligible import DrawWanted, listed, require_drawable
from chargewatch.supervision.timestamp import time_stamp

DRAW_NAME = re.compile(r"[0-9][A-Za-z0-9-]{0,39}")
THROWS_NEEDED = 2
OPENING_DAYS = 28
"""After the last due day, results are public: 20 working days, as sampling results must be."""


async def freeze(
    database: Database, wanted: DrawWanted, *, actor: Actor, clock: DrawClock
) -> RowMapping:
    """Freeze the list of a new draw and return the draw.

    Raises: DrawError for what can't be drawn, DrawStateError for a name that is taken.
    """
    if not DRAW_NAME.fullmatch(wanted.draw_id):
        raise DrawError(
            f"a draw can't be called {wanted.draw_id!r}: begin with a digit, go on with letters, "
            "digits and `-`, 40 at most, as 2026-12"
        )
    if not 1 <= wanted.due_days <= 366 or not 0 <= wanted.lately_days <= 3660:
        raise DrawError("inspections must be due within 1 to 366 days, and verified ones be left "
                        "out for 0 to 3660 days")  # fmt: skip
    made = await listed(database, wanted, today=clock.today, now=clock.now)
    text = await asyncio.to_thread(made.frame.text)
    plan = sampling_plan(len(made.frame.piles)) if wanted.lot else None
    values = {
        "draw_id": wanted.draw_id,
        "state": "frozen",
        "list_text": text,
        "list_sha256": list_hash(text),
        "piles": len(made.frame.piles),
        "lots": dict(made.lots),
        "excluded": dict(made.excluded),
        "lot": dict(wanted.lot) or None,
        "plan": None if plan is None else {"size": plan.size, "allowed": plan.allowed},
        "weights_rule": made.weights_rule,
        "size": wanted.size,
        "uniform_share": wanted.uniform,
        "crew": wanted.crew,
        "due_days": wanted.due_days,
        "frozen_at": made.frame.frozen_at,
        "made_by": actor.name,
    }
    async with database.begin() as connection:
        if not await rows.insert_draw(connection, values):
            raise DrawStateError(f"a draw {wanted.draw_id} is there already: choose another name")
        found = await rows.lock_draw(connection, wanted.draw_id)
        await record(
            connection,
            actor,
            Action.DRAW_FROZEN,
            f"draw:{wanted.draw_id}",
            at=clock.now,
            sha256=values["list_sha256"],
            piles=values["piles"],
            size=wanted.size,
            excluded=values["excluded"],
        )
    return _there(found)


def _there(found: RowMapping | None) -> RowMapping:
    if found is None:
        raise NotFoundError("the draw is gone")
    return found


async def recuse(
    database: Database,
    draw_id: str,
    *,
    inspector: str,
    operator_id: str,
    why: str,
    actor: Actor,
    clock: DrawClock,
) -> str:
    """Keep an inspector from an operator's piles in one draw; return the list's new hash.

    Only before the hash is published: the list is made anew with the recusal in it.

    Raises: NotFoundError, DrawStateError, DrawError.
    """
    told = words(why, "the reason of a recusal")
    async with database.begin() as connection:
        draw = await locked_draw(connection, draw_id, "frozen")
        if operator_id not in draw["lots"]:
            raise DrawError(f"operator {operator_id!r} has no pile in the list of draw {draw_id}")
        text = await rows.list_text(connection, draw_id)
        frame = await asyncio.to_thread(read_frame, text)
        name = listed_name(inspector)
        known = {one.name: one for one in frame.inspectors}
        if name not in known:
            raise NotFoundError(f"no inspector {inspector!r} in the list of draw {draw_id}")
        values = {
            "draw_id": draw_id,
            "inspector": inspector,
            "operator_id": operator_id,
            "why": told,
            "at": clock.now,
            "entered_by": actor.name,
        }
        is_new = operator_id not in known[name].recused
        if not is_new or not await rows.insert_recusal(connection, values):
            raise DrawStateError(f"{inspector} is recused from {operator_id} already")
        people = tuple(
            replace(one, recused=one.recused | {operator_id}) if one.name == name else one
            for one in frame.inspectors
        )
        frame = replace(frame, inspectors=people, frozen_at=clock.now.replace(microsecond=0))
        require_drawable(frame, draw["size"])
        text = await asyncio.to_thread(frame.text)
        sha256 = list_hash(text)
        changed = {"list_text": text, "list_sha256": sha256, "frozen_at": frame.frozen_at}
        await rows.update_draw(connection, draw_id, changed)
        await record(
            connection,
            actor,
            Action.DRAW_RECUSED,
            f"draw:{draw_id}",
            at=clock.now,
            why=told,
            inspector=inspector,
            operator_id=operator_id,
            sha256=sha256,
            sha256_before=draw["list_sha256"],
        )
    return sha256


async def publish(
    database: Database,
    draw_id: str,
    *,
    beacon_source: str = "",
    tsa_url: str = "",
    actor: Actor,
    clock: DrawClock,
) -> str:
    """Make a list's hash public and return it; from here on the list is bound.

    Args:
        database: with the draw.
        draw_id: a frozen draw.
        beacon_source: public randomness whose value will be part of the seed, and of which moment;
            "" for none.
        tsa_url: time-stamp authority to ask for a token over the list; "" for none.
        actor: who publishes.
        clock: when.

    Raises: NotFoundError, DrawStateError; TimestampError when the authority gives no token.
    """
    announced = words(beacon_source, "the beacon") if beacon_source.strip() else ""
    token = None
    if tsa_url:
        async with database.begin() as connection:
            draw = await locked_draw(connection, draw_id, "frozen")
            text = await rows.list_text(connection, draw_id)
        # Nobody is kept waiting for a stranger's answer.
        token = await time_stamp(tsa_url, text)
    async with database.begin() as connection:
        draw = await locked_draw(connection, draw_id, "frozen")
        if token is not None and draw["list_sha256"] != list_hash(text):
            raise DrawStateError(f"the list of draw {draw_id} has just changed: publish again")
        sha256 = str(draw["list_sha256"])
        changed = {
            "state": "published",
            "published_at": clock.now,
            "beacon_source": announced,
            "timestamp_token": token,
        }
        await rows.update_draw(connection, draw_id, changed)
        await record(
            connection,
            actor,
            Action.DRAW_PUBLISHED,
            f"draw:{draw_id}",
            at=clock.now,
            sha256=sha256,
            beacon_source=announced,
            time_stamped=token is not None,
        )
    return sha256


async def throw(
    database: Database,
    draw_id: str,
    *,
    witness: str,
    digits: str,
    actor: Actor,
    clock: DrawClock,
) -> int:
    """Enter the dice of one witness; return how many throws are still missing.

    Nobody enters two, and nobody is shown the first before the second is in.

    Raises: NotFoundError, DrawStateError, DrawError.
    """
    name = words(witness, "the witness's name")
    thrown = "".join(digits.split())
    if not thrown.isascii() or not thrown.isdigit():
        raise DrawError("the throw must be digits only, one for each die")
    if not LEAST_DIGITS_A_WITNESS <= len(thrown) <= 200:
        raise DrawError(
            f"{name} threw {len(thrown)} dice: at least {LEAST_DIGITS_A_WITNESS}, 200 at most"
        )
    async with database.begin() as connection:
        await locked_draw(connection, draw_id, "published")
        there = await rows.throws(connection, draw_id)
        if len(there) >= THROWS_NEEDED:
            raise DrawStateError(f"both witnesses of draw {draw_id} have thrown: draw now")
        if any(one["entered_by"] == actor.name for one in there):
            raise DrawStateError(
                f"{actor.name} has entered a throw already: the second witness enters its own, "
                "under its own log-in"
            )
        if any(one["witness"].casefold() == name.casefold() for one in there):
            raise DrawError(f"{name} has thrown already: two different witnesses must throw")
        values = {
            "draw_id": draw_id,
            "witness": name,
            "entered_by": actor.name,
            "digits": thrown,
            "at": clock.now,
        }
        await rows.insert_throw(connection, values)
        # Not the digits: who reads the trail would know them before the second throw.
        await record(
            connection,
            actor,
            Action.DRAW_THROWN,
            f"draw:{draw_id}",
            at=clock.now,
            witness=name,
            dice=len(thrown),
        )
    return THROWS_NEEDED - len(there) - 1


def _bundle_of(
    draw: RowMapping, text: str, throws: Sequence[RowMapping], *, size: int, beacon: str
) -> DrawBundle:
    return make_bundle(
        text,
        published_at=draw["published_at"],
        throws=tuple(
            ThrowRow(witness=one["witness"], digits=one["digits"], at=one["at"]) for one in throws
        ),
        size=size,
        beacon=beacon,
        beacon_source=draw["beacon_source"],
        timestamp=draw["timestamp_token"],
    )


def _planned(draw_id: str, found: Sequence[DrawnRow], *, due_on: date, now: datetime) -> list[Any]:
    return [
        {
            "draw_id": draw_id,
            "connector": told_name(one.pile),
            "station_id": one.station,
            "operator_id": one.operator,
            "inspector": told_name(one.inspectors[0]),
            "crew": [told_name(name) for name in one.inspectors],
            "part": one.part,
            "rank": one.rank,
            "ticket": one.ticket,
            "planned_at": now,
            "due_on": due_on,
            "state": "planned",
        }
        for one in found
    ]


async def run(
    database: Database, draw_id: str, *, beacon: str = "", actor: Actor, clock: DrawClock
) -> DrawBundle:
    """Draw: plan the inspections, keep the draw's file and return it.

    Args:
        database: with the draw.
        draw_id: a published draw with both throws.
        beacon: value of the public randomness that was announced; "" where none was.
        actor: who draws.
        clock: when.

    Raises: NotFoundError, DrawStateError, DrawError.
    """
    async with database.begin() as connection:
        draw = await locked_draw(connection, draw_id, "published")
        throws = await rows.throws(connection, draw_id)
        if len(throws) < THROWS_NEEDED:
            raise DrawStateError(
                f"{len(throws)} of {THROWS_NEEDED} witnesses have thrown for draw {draw_id}"
            )
        if bool(beacon) != bool(draw["beacon_source"]):
            raise DrawError(
                f"give the value of {draw['beacon_source']}, as it was announced"
                if draw["beacon_source"]
                else "no beacon was announced with the list: its value could be chosen now"
            )
        text = await rows.list_text(connection, draw_id)
        bundle = await asyncio.to_thread(
            _bundle_of, draw, text, throws, size=draw["size"], beacon=beacon
        )
        due_on = clock.today + timedelta(days=draw["due_days"])
        planned = _planned(draw_id, bundle.drawn, due_on=due_on, now=clock.now)
        await inspection_rows.insert_inspections(connection, planned)
        changed = {
            "state": "drawn",
            "drawn_at": clock.now,
            "bundle": bundle_text(bundle),
            "opens_on": due_on + timedelta(days=OPENING_DAYS),
        }
        await rows.update_draw(connection, draw_id, changed)
        await record(
            connection,
            actor,
            Action.DRAW_DRAWN,
            f"draw:{draw_id}",
            at=clock.now,
            seed=bundle.seed,
            size=bundle.size,
            file_sha256=list_hash(str(changed["bundle"])),
        )
    return bundle


async def take_more(
    database: Database, draw_id: str, *, size: int, actor: Actor, clock: DrawClock
) -> DrawBundle:
    """Make a draw larger; what was drawn stays, in its order. Return the draw's new file.

    Not once the list is public: everybody could see then who comes next.

    Raises: NotFoundError, DrawStateError, DrawError.
    """
    async with database.begin() as connection:
        draw = await locked_draw(connection, draw_id, "drawn", "done")
        if is_open(draw, clock.today):
            raise DrawStateError(
                f"draw {draw_id} is public: who comes next could be foreseen; freeze a new list"
            )
        if not draw["size"] < size <= draw["piles"]:
            raise DrawError(
                f"take more than the {draw['size']} piles that are drawn, at most {draw['piles']}"
            )
        before = DrawBundle.model_validate_json(str(await rows.bundle(connection, draw_id)))
        throws = await rows.throws(connection, draw_id)
        bundle = await asyncio.to_thread(
            _bundle_of, draw, before.list_text, throws, size=size, beacon=before.beacon
        )
        grown = bundle.drawn[: len(before.drawn)]
        moved = {
            new.rank: new.ticket
            for old, new in zip(before.drawn, grown, strict=True)
            if old.part != new.part
        }
        if moved:
            await inspection_rows.set_uniform(connection, draw_id, tickets=moved)
        due_on = clock.today + timedelta(days=draw["due_days"])
        added = bundle.drawn[len(before.drawn) :]
        await inspection_rows.insert_inspections(
            connection, _planned(draw_id, added, due_on=due_on, now=clock.now)
        )
        changed = {
            "state": "drawn",
            "size": size,
            "bundle": bundle_text(bundle),
            "opens_on": due_on + timedelta(days=OPENING_DAYS),
        }
        await rows.update_draw(connection, draw_id, changed)
        await record(
            connection,
            actor,
            Action.DRAW_GROWN,
            f"draw:{draw_id}",
            at=clock.now,
            size=size,
            size_before=draw["size"],
            file_sha256=list_hash(str(changed["bundle"])),
        )
    return bundle


async def open_draw(database: Database, draw_id: str, *, actor: Actor, clock: DrawClock) -> None:
    """Make list, seed and piles of a draw public, once every inspection of it has ended.

    Raises: NotFoundError, DrawStateError.
    """
    async with database.begin() as connection:
        draw = await locked_draw(connection, draw_id, "done")
        if draw["opened_at"] is not None:
            raise DrawStateError(f"draw {draw_id} is public already")
        await rows.update_draw(connection, draw_id, {"opened_at": clock.now})
        await record(
            connection,
            actor,
            Action.DRAW_OPENED,
            f"draw:{draw_id}",
            at=clock.now,
        )


async def withdraw(
    database: Database, draw_id: str, *, why: str, actor: Actor, clock: DrawClock
) -> None:
    """Give a draw up before anybody has thrown for it; later nobody can.

    Raises: NotFoundError, DrawStateError, DrawError.
    """
    told = words(why, "why a draw is withdrawn")
    async with database.begin() as connection:
        await locked_draw(connection, draw_id, "frozen", "published")
        if await rows.throws(connection, draw_id):
            raise DrawStateError(
                f"a witness has thrown for draw {draw_id}: it can't be withdrawn, or one could "
                "throw until the result pleases"
            )
        changed = {"state": "withdrawn", "withdrawn_at": clock.now, "withdrawn_why": told}
        await rows.update_draw(connection, draw_id, changed)
        await record(
            connection, actor, Action.DRAW_WITHDRAWN, f"draw:{draw_id}", at=clock.now, why=told
        )
