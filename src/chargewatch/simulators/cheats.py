"""Meters that are wrong only in a situation: what they add to their registers, and when.

A session of such a meter is cut where its situation begins or ends, so the register stays a
piecewise linear function of time and can be read exactly, as all others.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.simulators.billing import dearest_hours
from chargewatch.simulators.charging import ChargingSessions, air_temperature_c
from chargewatch.simulators.faults import Fault, Faults
from chargewatch.simulators.layout import Layout
from chargewatch.simulators.situations import Charge, Situation, situation_of

KEY_S = 1e8
"""Longer than any history: connector x KEY_S + time orders by both."""


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """Parts of sessions on which a meter's added error is constant; sorted by (connector, begin).

    Shape (p,). The first piece of a connector has no length: what was added before it.
    """

    connector: Ints
    begin_s: Floats
    end_s: Floats
    session_end_s: Floats
    before_wh: Floats  # added before the piece begins, since the history's start
    added_wh: Floats
    error: Floats

    def rows(self, which: Ints | Bools) -> Pieces:
        """Return some of the pieces."""
        return Pieces(**{f.name: getattr(self, f.name)[which] for f in fields(self)})

    @classmethod
    def join(cls, *parts: Pieces) -> Pieces:
        """Return several sets as one."""
        columns = {
            f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)
        }
        return cls(**columns).rows(np.lexsort((columns["begin_s"], columns["connector"])))


@dataclass
class Split:
    """True energy of a cheat's sessions within the history, and what its meter made of it.

    Inside its situation and outside.
    """

    inside_wh: float = 0.0
    outside_wh: float = 0.0
    inside_error_wh: float = 0.0
    outside_error_wh: float = 0.0


@dataclass(frozen=True)
class Cheat:
    """One meter that is wrong in one situation."""

    fault: Fault
    situation: Situation
    magnitude: float  # a fraction
    split: Split = field(default_factory=Split)


class Cheats:
    """All meters that are wrong only in a situation; days come in order."""

    def __init__(
        self,
        layout: Layout,
        faults: Faults,
        *,
        from_local_s: float,
        span_s: tuple[float, float],
    ) -> None:
        self._layout, self._from_local_s, self._span_s = layout, from_local_s, span_s
        self.of_connector: dict[int, Cheat] = {}
        temperature = air_temperature_c(from_local_s + np.arange(*span_s, 3600.0))

        def exceeded(part: float) -> float:
            return float(np.quantile(temperature, 1 - part))

        for fault in faults.all:
            if not fault.kind.name.startswith("cheat_"):
                continue
            station = int(layout.connectors.station[fault.target])
            situation = situation_of(
                fault.kind.name,
                fault.parameters,
                peak_h=dearest_hours(int(layout.stations.plan[station])),
                hot=exceeded,
            )
            magnitude = float(fault["magnitude_mpe"] * layout.connectors.mpe[fault.target])
            self.of_connector[fault.target] = Cheat(fault, situation, magnitude)
        self._cheats = np.zeros(layout.connectors.size, dtype=bool)
        self._cheats[list(self.of_connector)] = True
        self.added_wh = np.zeros(layout.connectors.size)
        self._pieces = self._standing(-1)

    def enter_day(self, sessions: ChargingSessions, error: Floats, day: int) -> None:
        """Take the sessions that start on a day; ``error`` is what their meters have otherwise.

        Shape of ``error``: (k, SEGMENTS).
        """
        if not self.of_connector:
            return
        # A session that lasts into this day is read from its begin on.
        kept = self._pieces.rows(self._pieces.session_end_s >= day * DAY_S)
        standing = self._standing(day)
        # What lasts into this day was added to the sum already, but not yet before it began.
        first = np.unique(kept.connector, return_index=True)
        place = np.searchsorted(standing.connector, first[0])
        standing.before_wh[place] = kept.before_wh[first[1]]
        fresh = [
            self._cut(sessions, row, error[row])
            for row in np.flatnonzero(self._cheats[sessions.connector]).tolist()
        ]
        self._pieces = Pieces.join(standing, kept, *fresh)

    def _standing(self, day: int) -> Pieces:
        """Return for each connector a piece without length before a day."""
        connector = np.array(sorted(self.of_connector), dtype=np.int64)
        nothing = np.zeros(connector.size)
        begin = nothing + (day - 2) * DAY_S
        return Pieces(
            connector=connector,
            begin_s=begin,
            end_s=begin,
            session_end_s=begin,
            before_wh=self.added_wh[connector],
            added_wh=nothing,
            error=nothing,
        )

    def _cut(self, sessions: ChargingSessions, row: int, error: Floats) -> Pieces:
        connector = int(sessions.connector[row])
        cheat = self.of_connector[connector]
        begin = float(sessions.start_s[row]) + self._from_local_s
        charge = Charge(
            begin_s=begin,
            ends_s=begin + sessions.segment_end_s[row],
            power_w=sessions.power_w[row],
            rated_w=float(self._layout.connectors.rated_w[connector]),
        )
        times = np.concatenate([[begin], charge.ends_s, cheat.situation.edges(charge)])
        times = np.unique(times[(times >= begin) & (times <= charge.ends_s[-1])])
        middle = (times[1:] + times[:-1]) / 2
        segment = charge.segment(middle)
        true = charge.power_w[segment] * np.diff(times) / 3600
        inside = cheat.situation.holds(charge, middle)
        wrong = np.where(inside, cheat.magnitude, 0.0)
        # Multiples of 1/1024 Wh, as all energies of the ledger.
        added = np.round(true * wrong * 1024) / 1024
        before = self.added_wh[connector] + np.cumsum(added) - added
        self.added_wh[connector] += added.sum()
        times -= self._from_local_s
        in_history = np.diff(np.clip(times, *self._span_s)) / np.diff(times)
        self._count(cheat.split, true * in_history, error[segment] + wrong, inside)
        return Pieces(
            connector=np.full(middle.size, connector),
            begin_s=times[:-1],
            end_s=times[1:],
            session_end_s=np.full(middle.size, times[-1]),
            before_wh=before,
            added_wh=added,
            error=wrong,
        )

    @staticmethod
    def _count(split: Split, true: Floats, error: Floats, inside: Bools) -> None:
        error_wh = true * error
        split.inside_wh += float(true[inside].sum())
        split.outside_wh += float(true[~inside].sum())
        split.inside_error_wh += float(error_wh[inside].sum())
        split.outside_error_wh += float(error_wh[~inside].sum())

    def mean_error(self) -> Floats:
        """Return what the situations add to the errors over the history's energy, shape (n,)."""
        mean = np.zeros(self._cheats.size)
        for i, cheat in self.of_connector.items():
            total = cheat.split.inside_wh + cheat.split.outside_wh
            mean[i] = cheat.magnitude * cheat.split.inside_wh / total if total > 0 else 0.0
        return mean

    def add_to(self, indicated_wh: Floats, connector: Ints, t_s: Floats) -> None:
        """Add to indicated energies at times of the day what the situations did by then."""
        rows = self._rows(connector)
        if not rows.size:
            return
        place, part = self._find(connector[rows], t_s[rows])
        pieces = self._pieces
        indicated_wh[rows] += pieces.before_wh[place] + part * pieces.added_wh[place]

    def error(self, connector: Ints, t_s: Floats) -> Floats:
        """Return the added error at times of the day; 0 outside sessions."""
        found = np.zeros(connector.size)
        rows = self._rows(connector)
        if rows.size:
            place, _ = self._find(connector[rows], t_s[rows])
            found[rows] = self._pieces.error[place]
        return found

    def _rows(self, connector: Ints) -> Ints:
        if not self.of_connector:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(self._cheats[connector])

    def _find(self, connector: Ints, t_s: Floats) -> tuple[Ints, Floats]:
        """Return the piece at or before each time, and how far in it the time lies."""
        pieces = self._pieces
        key = pieces.connector * KEY_S + pieces.begin_s
        place = np.searchsorted(key, connector * KEY_S + t_s, side="right") - 1
        length = (pieces.end_s - pieces.begin_s)[place]
        since = t_s - pieces.begin_s[place]
        part = np.divide(since, length, out=np.ones_like(since), where=length > 0)
        return place, np.clip(part, 0.0, 1.0)
