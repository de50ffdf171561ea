"""A session starts at another register than the last one ended."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints, sums_between
from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import DAY_S, time_text
from chargewatch.signals.block import Block
from chargewatch.signals.findings import Finding, findings_by_day
from chargewatch.signals.outside import IDLE_WH_PER_DAY, LONGEST_PAIR_S, may_be_charging
from chargewatch.signals.registers import Pairs
from chargewatch.signals.rule import Check, Rule
from chargewatch.signals.timeline import SESSION_CLOCK_S, resolution_at, unsound_before

CODE = "register_discontinuity"
STARTS = Sentence(
    "session_starts_elsewhere",
    "a session starts at {start:.0f} Wh, the one before ended at {stop:.0f} Wh",
)


def _explained(block: Block, first: Ints, last: Ints) -> Floats:
    """Return the energy between two readings that isn't idle: a session's, or what may be one."""
    pairs = block.pairs
    outside = block.outside & ~may_be_charging(pairs)
    steps = np.where(pairs.valid & ~outside & (pairs.step_wh > 0), pairs.step_wh, 0.0)
    begin = np.maximum(first, 0)
    return sums_between(steps, begin, np.maximum(last, begin))


def _is_near(pairs: Pairs, first: Ints, last: Ints) -> Bools:
    """Return where two readings are close enough to know of everything between them."""
    if pairs.readings.at_s.size == 0:
        return np.zeros(first.size, bool)
    at_s = pairs.readings.at_s
    near = at_s[last] - at_s[first] <= LONGEST_PAIR_S.value
    return np.asarray((first >= 0) & (last >= 0) & near)


def find(block: Block) -> list[Finding]:
    """Return findings of sessions that start at another register than the last one ended.

    Energy that flowed between the two under another session's name, or in a span without
    readings, explains a difference (a session's record may be missing); so do 50 Wh a day. Where
    there are no readings between two sessions, a step forward counts only when no message of the
    station is missing.
    """
    pairs, sessions, line = block.pairs, block.sessions, block.line
    same = np.flatnonzero(np.diff(sessions.connector) == 0)
    if same.size == 0:
        return []
    prior, later = sessions.take(same), sessions.take(same + 1)
    gap_s = later.started_s - prior.ended_s
    step = later.start_wh - prior.stop_wh
    clock = SESSION_CLOCK_S.value
    # First and last reading between the two, and those beyond them on either side.
    k0 = line.at_or_after(prior.connector, prior.ended_s - clock)
    k1 = line.at_or_before(prior.connector, later.started_s + clock)
    before = line.at_or_before(prior.connector, prior.ended_s - clock)
    after = line.at_or_after(prior.connector, later.started_s + clock)
    covered = (k0 >= 0) & (k1 >= k0)
    explained = np.where(covered, _explained(block, k0, k1), 0.0)
    broken = unsound_before(pairs)
    quiet = (before < 0) | (after < 0) | (broken[before] == broken[after])
    quiet &= ~block.declarations.any_between(prior.connector, prior.ended_s, later.started_s)
    whole = block.complete[prior.connector]
    dense = covered & _is_near(pairs, before, k0) & _is_near(pairs, k1, after)
    resolution = resolution_at(pairs, line, prior.connector, later.started_s)
    tolerance = 2 * resolution + 1.0
    idle = IDLE_WH_PER_DAY.value * np.maximum(gap_s / DAY_S, 1.0)
    most = explained + idle + tolerance
    forward = (step > most) & (dense | whole)
    bad = np.flatnonzero((gap_s >= 0) & quiet & (forward | (step < -tolerance)))
    prior, later = prior.take(bad), later.take(bad)
    step, most = step[bad], np.where(step[bad] < 0, tolerance[bad], most[bad])
    return findings_by_day(
        CODE,
        later.connector,
        later.started_s,
        first_s=prior.ended_s,
        value=step,
        limit=most,
        detail=lambda k: STARTS(start=later.start_wh[k], stop=prior.stop_wh[k]),
        record=lambda k: {
            "session": int(later.name[k]),
            "session_before": int(prior.name[k]),
            "ended_at": time_text(prior.ended_s[k]),
            "stop_wh": float(prior.stop_wh[k]),
            "started_at": time_text(later.started_s[k]),
            "start_wh": float(later.start_wh[k]),
        },
    )


RULE = Rule(
    code=CODE,
    severity=Severity.MILD,
    title="Register discontinuity",
    raised=(
        "a session starts at another register than the last one ended, beyond "
        f"{IDLE_WH_PER_DAY} a day and what flowed under another session's name"
    ),
    left_alone="steps forward where readings or messages are missing",
    limits=(IDLE_WH_PER_DAY, SESSION_CLOCK_S, LONGEST_PAIR_S),
    sentences=(STARTS,),
    checks=(Check(Block, find),),
    explained_by="unit_fault",
    not_simulated="it comes with faults that raise another signal for certain",
)
