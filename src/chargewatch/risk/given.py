"""What an evaluation tells the engine in place of what the rounds would judge.

A real run is given nothing. `evaluation/oracle.py` gives truths, to see what the engine would reach
if it judged perfectly, and which judgement costs how much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from chargewatch.domain.arrays import Floats
from chargewatch.risk.decision import Population
from chargewatch.risk.evidence import Judgement
from chargewatch.risk.spreads import Spreads


@dataclass(frozen=True, kw_only=True)
class Given:
    """Truths in place of judgements; None or False: judged as ever."""

    spreads: Spreads | None = None
    population: Population | None = None
    holds: Floats | None = None
    """Probability that each verification still holds, shape (a,)."""
    all_good: bool = False
    """There is no garbage in the inputs: every session and vehicle counts in full."""
    no_changes: bool = False
    """No error changes: changes are not looked for."""

    def in_place(self, judged: Judgement) -> Judgement:
        """Return a judgement with what is given in place of its own."""
        weights = judged.weights
        if self.all_good:
            weights = replace(
                weights,
                tail=np.ones_like(weights.tail),
                inflation=np.ones_like(weights.inflation),
                node_tail=np.ones_like(weights.node_tail),
            )
        return replace(
            judged,
            spreads=judged.spreads if self.spreads is None else self.spreads,
            population=judged.population if self.population is None else self.population,
            holds=judged.holds if self.holds is None else self.holds,
            weights=weights,
        )


NOTHING = Given()
