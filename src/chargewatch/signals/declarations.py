"""Declared changes of registers: which fall or jump a declaration explains.

A gateway declares by a reading's context (`Register.Reset`) or by an event; both end up as the
same mark on the first reading after the change. An event explains one step only, the nearest one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints

CLOCK_S = 300.0
"""How far a declared time may lie outside of the two readings around the step.

The gateway stamps both; its clock may be off by 180 s before that is a finding of its own, and it
notices a new meter within its reading cycle of a minute or two.
"""

_SPAN_S = float(1 << 34)
"""More than any time since 1970, s; of 100,000 connectors a quarter of a second is still told."""


@dataclass(frozen=True)
class Resets:
    """Changes of registers that readings declared (context `Register.Reset`); shape (r,)."""

    connector: Ints  # row of Fleet
    at_s: Floats

    @staticmethod
    def none() -> Resets:
        """Return no reset."""
        return Resets(np.empty(0, np.int64), np.empty(0))

    def take(self, rows: Ints | Bools) -> Resets:
        """Return some of them."""
        return Resets(self.connector[rows], self.at_s[rows])

    def joined(self, others: Sequence[Resets]) -> Resets:
        """Return these and others."""
        parts = [self, *others]
        return Resets(
            np.concatenate([part.connector for part in parts]),
            np.concatenate([part.at_s for part in parts]),
        )


@dataclass(frozen=True, kw_only=True)
class Declarations:
    """Changes of registers that were declared by events, sorted by (connector, time)."""

    connector: Ints  # row of Fleet
    at_s: Floats
    replaced: Bools  # the meter is another one: the step around it is no energy in any case

    @staticmethod
    def none() -> Declarations:
        """Return no declaration."""
        return Declarations(
            connector=np.empty(0, np.int64), at_s=np.empty(0), replaced=np.empty(0, bool)
        )

    def of(self, rows: Ints) -> Declarations:
        """Return those of some connectors."""
        keep = np.isin(self.connector, rows)
        return Declarations(
            connector=self.connector[keep], at_s=self.at_s[keep], replaced=self.replaced[keep]
        )

    def with_resets(self, resets: Resets) -> Declarations:
        """Return these and those that readings declare, for counting all of them."""
        connector = np.concatenate([self.connector, resets.connector])
        at_s = np.concatenate([self.at_s, resets.at_s])
        replaced = np.concatenate([self.replaced, np.zeros(resets.at_s.size, bool)])
        order = np.lexsort((at_s, connector))
        return Declarations(connector=connector[order], at_s=at_s[order], replaced=replaced[order])

    def first_from(self, connector: Ints, at_s: Floats) -> Ints:
        """Return the place of the first declaration of connectors at or after times."""
        return np.asarray(np.searchsorted(self._keys, connector * _SPAN_S + at_s, side="left"))

    @property
    def _keys(self) -> Floats:
        return np.asarray(self.connector * _SPAN_S + self.at_s)

    def any_between(self, connector: Ints, from_s: Floats, to_s: Floats) -> Bools:
        """Return whether there is one in [from, to], the clock's slack on both sides."""
        after = np.searchsorted(self._keys, connector * _SPAN_S + to_s + CLOCK_S, side="right")
        return np.asarray(after > self.first_from(connector, from_s - CLOCK_S))


def declared_steps(
    declarations: Declarations,
    *,
    connector: Ints,
    start_s: Floats,
    end_s: Floats,
    valid: Bools,
    odd: Bools,
) -> Bools:
    """Return which steps between two readings are explained by a declaration; shape (k,).

    Each declaration explains the odd step that is nearest to it, at most CLOCK_S away; a replaced
    meter without one explains the step that its time lies in.

    Where:
        connector, start_s, end_s: connector and times of the readings around each step, sorted.
        valid: the step is between two readings of one connector.
        odd: the register fell, jumped or changed its scale.
    """
    explained = np.zeros(connector.size, bool)
    count = declarations.at_s.size
    if not count or not connector.size:
        return explained
    used = np.zeros(count, bool)
    steps = np.flatnonzero(valid & odd)
    if steps.size:
        nearest, distance = _nearest(declarations, connector[steps], start_s[steps], end_s[steps])
        order = np.lexsort((steps, distance, nearest))
        order = order[distance[order] <= CLOCK_S]
        first = np.flatnonzero(np.diff(nearest[order], prepend=-1))
        explained[steps[order[first]]] = True
        used[nearest[order[first]]] = True
    replaced = np.flatnonzero(declarations.replaced & ~used)
    keys = connector * _SPAN_S + end_s
    place = np.searchsorted(
        keys, declarations.connector[replaced] * _SPAN_S + declarations.at_s[replaced], side="left"
    )
    inside = place < connector.size
    replaced, place = replaced[inside], place[inside]
    around = valid[place] & (connector[place] == declarations.connector[replaced])
    around &= start_s[place] <= declarations.at_s[replaced]
    explained[place[around]] = True
    return explained


def _nearest(
    declarations: Declarations, connector: Ints, start_s: Floats, end_s: Floats
) -> tuple[Ints, Floats]:
    """Return the nearest declaration of each step and its distance outside of the step, s."""
    after = declarations.first_from(connector, start_s)
    best = np.zeros(connector.size, np.int64)
    distance = np.full(connector.size, np.inf)
    for place in (after - 1, after):
        inside = (place >= 0) & (place < declarations.at_s.size)
        at = np.clip(place, 0, declarations.at_s.size - 1)
        inside &= declarations.connector[at] == connector
        away = np.maximum(start_s - declarations.at_s[at], declarations.at_s[at] - end_s)
        away = np.where(inside, np.maximum(away, 0.0), np.inf)
        closer = away < distance
        best[closer], distance[closer] = at[closer], away[closer]
    return best, distance
