"""Sessions that count from the register's zero: its whole life is billed for one charge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Floats
from chargewatch.domain.rollover import UNKNOWN_W, metered_energy
from chargewatch.signals.registers import POWER_MARGIN
from chargewatch.signals.sessions import BilledSessions

SESSION_SLACK_S = 360.0
"""How far begin and end of a session may be off: both by the clock limit of time-of-use piles."""


@dataclass(frozen=True, kw_only=True)
class FromZero:
    """Which sessions count from the register's zero, shape (s,)."""

    is_so: Bools
    grew_wh: Floats  # what the register grew by; NaN: not known
    most_wh: Floats  # what rated power can have given


def from_zero(
    sessions: BilledSessions, *, tolerance_wh: Floats, rated_w: Floats, at_begin_wh: Floats
) -> FromZero:
    """Return the sessions, sorted by (connector, started_s), that count from the register's zero.

    A session bills the lifetime register where `billed_wh` is `stop_wh` and not what the register
    grew by; or it begins at register 0 though its readings say that the register stood elsewhere,
    or though rated power can't give what it ends with.

    Args:
        sessions: as they were told.
        tolerance_wh: how far registers may be off, shape (s,).
        rated_w: rated power of each session's connector, W; NaN: not known.
        at_begin_wh: the least that the register can have been at the begin, by readings of a
            register without fall or jump; NaN: not known.
    """
    start, stop, billed = sessions.start_wh, sessions.stop_wh, sessions.billed_wh
    span = np.maximum(sessions.ended_s - sessions.started_s, 0.0)
    metered = metered_energy(start, stop, span_s=span, rated_w=rated_w)
    power = np.where(np.isnan(rated_w), UNKNOWN_W, POWER_MARGIN.value * rated_w)
    most = power * (span + SESSION_SLACK_S) / 3600 + tolerance_wh
    lifetime = (start > tolerance_wh) & (np.abs(billed - stop) <= tolerance_wh)
    lifetime &= billed - metered > tolerance_wh
    at_begin = at_begin_wh.copy()
    follows = np.flatnonzero(np.diff(sessions.connector) == 0) + 1
    at_begin[follows] = np.fmax(stop[follows - 1], at_begin[follows])
    # Beyond its end the session is of another register: a new one, or one of its own.
    at_begin[~(at_begin <= stop + tolerance_wh)] = np.nan
    elsewhere = (at_begin_wh > 2 * tolerance_wh) & (at_begin_wh <= stop + tolerance_wh)
    begins = (start <= tolerance_wh) & (elsewhere | (metered > most))
    return FromZero(
        is_so=lifetime | begins,
        grew_wh=np.where(lifetime, metered, np.maximum(stop - at_begin, 0.0)),
        most_wh=most,
    )
