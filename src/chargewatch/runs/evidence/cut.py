"""Evidence files of a run's flags, cut while all that decided them is in memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import numpy as np

from chargewatch import __version__
from chargewatch.domain.assessment import Assessment
from chargewatch.domain.signal import Signal
from chargewatch.domain.verdict import Tier
from chargewatch.risk.engine import Course
from chargewatch.risk.excerpt import excerpt_of
from chargewatch.runs.context import RunContext
from chargewatch.runs.evidence.grounds import Books, Grounds, told, written
from chargewatch.runs.evidence.replay import replay
from chargewatch.runs.load import Loaded
from chargewatch.runs.owed import Amounts, Owed
from chargewatch.storage.office import evidence
from chargewatch.storage.office.evidence import KeptFile
from chargewatch.supervision.audit import PLATFORM, Action, record
from chargewatch.supervision.evidence.form import EvidenceError, EvidenceFile, packed, unpacked
from chargewatch.supervision.evidence.kept import PileName, keep_evidence

log = logging.getLogger("chargewatch.runs")

TAKEN_TIERS = (Tier.RED, Tier.ORANGE)
STAYS_DAYS = 30
"""A flag that stays for longer is taken once more."""
MOST_WANTED = 100
"""Files that are taken in one run because somebody asked, at most."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a run knows when its evidence is taken."""

    loaded: Loaded
    course: Course
    signals: Sequence[Signal]
    assessments: Mapping[int, Assessment]  # by row, those that are saved
    owed: Owed
    digest: str  # of the run's result


def pile_of(assessment: Assessment) -> PileName:
    """Return whose an assessment is."""
    return PileName(
        operator_id=assessment.operator_id,
        station_id=assessment.station_id,
        connector=assessment.connector,
    )


def chosen_rows(
    assessments: Mapping[int, Assessment],
    *,
    kept: Mapping[PileName, Collection[str]],
    wanted: Collection[PileName],
    most: int,
) -> list[int]:
    """Return the rows whose evidence is taken: what was asked for, then flags without a file.

    Args:
        assessments: of the run.
        kept: the tiers that a pile has a file of already.
        wanted: piles that somebody asked for.
        most: flags at most; the worst first, the others' turn comes with a later run.
    """
    asked = [row for row, one in assessments.items() if pile_of(one) in wanted][:MOST_WANTED]
    flags = [
        row
        for row, one in assessments.items()
        if one.tier in TAKEN_TIERS and one.tier.value not in kept.get(pile_of(one), ())
    ]
    flags = [row for row in flags if row not in set(asked)]
    flags.sort(
        key=lambda row: (
            TAKEN_TIERS.index(assessments[row].tier),
            -float(np.nan_to_num(assessments[row].priority_money)),
            pile_of(assessments[row]),
        )
    )
    return [*asked, *flags[:most]]


async def chosen_evidence(
    connection: asyncpg.Connection,
    assessments: Mapping[int, Assessment],
    *,
    as_of: datetime,
    most: int,
    names: Collection[str],
) -> list[int]:
    """Return the rows whose evidence a run takes; see `chosen_rows`.

    A pile that was no flag in the run before is a new one, whatever files there are of it.

    Args:
        connection: to the database.
        assessments: of the run, by row.
        as_of: of the run.
        most: flags at most.
        names: connectors that are taken in any case.
    """
    before = {
        (pile_of_row(row), row["tier"])
        for row in await evidence.flags_before(
            connection, as_of=as_of, tiers=[tier.value for tier in TAKEN_TIERS]
        )
    }
    kept: dict[PileName, set[str]] = {}
    for row in await evidence.kept_tiers(connection, since=as_of - timedelta(days=STAYS_DAYS)):
        if (pile_of_row(row), row["tier"]) in before:
            kept.setdefault(pile_of_row(row), set()).add(row["tier"])
    wanted = {pile_of_row(row) for row in await evidence.wanted(connection)}
    wanted |= {pile_of(one) for one in assessments.values() if one.connector in names}
    return chosen_rows(assessments, kept=kept, wanted=wanted, most=most)


def pile_of_row(row: Mapping[str, Any]) -> PileName:
    """Return whose a row of the database is."""
    return PileName(
        operator_id=row["operator_id"], station_id=row["station_id"], connector=row["connector"]
    )


def _row_of(amounts: Amounts, row: int) -> Amounts:
    return Amounts(**{name: values[row : row + 1] for name, values in vars(amounts).items()})


def evidence_of(made: Made, row: int, *, run: Mapping[str, Any]) -> EvidenceFile:
    """Return the evidence file of one connector of a run."""
    assessment, loaded = made.assessments[row], made.loaded
    pile = pile_of(assessment)
    grounds = Grounds(
        excerpt=excerpt_of(made.course, row),
        books=Books(
            last_reading_s=float(loaded.last_reading_s[row]),
            recent_error=_row_of(made.owed.recent_error, row),
            recent_billing=_row_of(made.owed.recent_billing, row),
        ),
        signals=[
            one
            for one in made.signals
            if (one.operator_id, one.station_id) == (pile.operator_id, pile.station_id)
            and one.connector in (None, pile.connector)
        ],
        row=told(assessment),
        pile=vars(pile),
    )
    return written(grounds, run=run)


def taken(made: Made, rows: Sequence[int], *, run: Mapping[str, Any]) -> list[KeptFile]:
    """Return the evidence files of some connectors, each computed again before it is believed.

    One that can't be made, or doesn't come to the run's verdict, is left out and logged: a run
    doesn't fail for its evidence.
    """
    files = []
    for row in rows:
        one = made.assessments[row]
        try:
            file = evidence_of(made, row, run=run)
            content = packed(file)
            # What is kept, not what it was made of: that is what others will read.
            again = replay(unpacked(content))
            if again.differs:
                raise EvidenceError(
                    f"computed again, {', '.join(again.differs)} came out otherwise"
                )
        except Exception:
            log.exception("evidence_not_made connector=%s", one.connector)
            continue
        files.append(
            KeptFile(
                operator_id=one.operator_id,
                station_id=one.station_id,
                connector=one.connector,
                tier=one.tier.value,
                digest=file.digest,
                content=content,
            )
        )
    return files


async def take_evidence(context: RunContext, made: Made) -> list[KeptFile]:
    """Return the evidence files of a run's new flags, and of what somebody asked for."""
    async with context.database.raw() as connection:
        chosen = await chosen_evidence(
            connection,
            made.assessments,
            as_of=context.as_of,
            most=context.evidence_files,
            names=context.evidence_of,
        )
    if not chosen:
        return []
    run = {"run_id": context.run_id, **_told_of(context, made.digest)}
    files = await asyncio.to_thread(taken, made, chosen, run=run)
    context.say(f"evidence of {len(files)} piles")
    return files


def _told_of(context: RunContext, digest: str) -> dict[str, Any]:
    return {
        "mode": context.plan.mode,
        "as_of": context.as_of.isoformat(),
        "version": __version__,
        "result_digest": digest,
        "configuration": context.configuration,
    }


async def enter_run(
    connection: asyncpg.Connection, context: RunContext, *, digest: str, files: Sequence[KeptFile]
) -> None:
    """Keep a run's evidence files and enter them and the run in the audit trail, as its last."""
    await keep_evidence(connection, context.run_id, files)
    await record(
        connection,
        PLATFORM,
        Action.RUN_FINISHED,
        f"run:{context.run_id}",
        **_told_of(context, digest),
    )
