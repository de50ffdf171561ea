"""Facts of checks, made by hand."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.mpe import rule_set
from chargewatch.settings import Settings
from chargewatch.signals.block import Block
from chargewatch.signals.declarations import Declarations
from chargewatch.signals.money import BilledPeriods, Fees
from chargewatch.signals.registers import Piles, Readings
from chargewatch.signals.sessions import BilledSessions

CLOCK_LIMIT_S = rule_set(Settings().mpe_rules).clock_limit_s
"""Of the rule set that a new installation uses."""

NO_SESSIONS = BilledSessions(
    name=np.empty(0, np.int64),
    connector=np.empty(0, np.int64),
    **{name: np.empty(0) for name in ("started_s", "ended_s", "start_wh", "stop_wh", "billed_wh")},
)
NO_FEES = Fees(
    **{name: np.empty(0, np.int64) for name in ("name", "connector")},
    **{
        name: np.empty(0) for name in Fees.__dataclass_fields__ if name not in {"name", "connector"}
    },
)
NO_PERIODS = BilledPeriods(
    session=np.empty(0, np.int64),
    **{name: np.empty(0) for name in BilledPeriods.__dataclass_fields__ if name != "session"},
)


def block_of(
    readings: Readings,
    piles: Piles,
    *,
    sessions: BilledSessions = NO_SESSIONS,
    declarations: Declarations | None = None,
    fees: Fees = NO_FEES,
    periods: BilledPeriods = NO_PERIODS,
    complete: bool = True,
    as_of_s: float = 1e11,
    base_s: float | None = None,
) -> Block:
    """Return readings with what lies beside them; nothing where it isn't given."""
    if base_s is None:
        base_s = float(readings.at_s.min()) - 86_400 if readings.at_s.size else 0.0
    return Block(
        readings=readings,
        piles=piles,
        sessions=sessions,
        declarations=Declarations.none() if declarations is None else declarations,
        fees=fees,
        periods=periods,
        complete=np.full(piles.rated_power_w.size, complete),
        as_of_s=as_of_s,
        base_s=base_s,
        clock_limit_s=CLOCK_LIMIT_S,
    )
