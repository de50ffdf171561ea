"""How many of a lot to inspect: plans that are looked up beside those that are computed.

A looked-up plan is data with its source; what it is worth for a lot of this size is computed from
the hypergeometric distribution, so that both can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from scipy import stats
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.draws.frame import DrawError
from chargewatch.draws.plans import ACCEPTABLE_QUALITY, LIMITING_QUALITY, at_most, sampling_plan
from chargewatch.storage.office import draws as rows

CONFORMING_LOT = 0.05
"""Share of nonconforming ones that a lot may have for its verifications to be prolonged: 95 % must
conform. Source: MessEV (Germany), section 35, the ground of PTB working group 8.42's plans."""


@dataclass(frozen=True, kw_only=True)
class NamedPlan:
    """A single plan with what it is worth for one lot."""

    name: str
    source: str
    confirmed: bool  # whether the figures were read in the document itself
    size: int
    allowed: int
    producers_risk: float  # that a lot of acceptable quality fails
    consumers_risk: float  # that a lot of limiting quality passes


@dataclass(frozen=True, kw_only=True)
class LotPlan:
    """The plans of one lot."""

    instruments: int
    acceptable: float
    limiting: float
    plans: tuple[NamedPlan, ...]


@cache
def look_up_tables() -> tuple[Mapping[str, Any], ...]:
    """Return the look-up tables that ship with chargewatch."""
    text = files(__package__).joinpath("plans.json").read_text("utf-8")
    return tuple(json.loads(text)["tables"])


def _looked_up(lot: int, *, acceptable: float, limiting: float) -> list[NamedPlan]:
    good, bad = at_most(acceptable, lot), lot - at_most(1.0 - limiting, lot)
    found = []
    for table in look_up_tables():
        row = next((one for one in table["rows"] if lot <= one["most"]), None)
        if row is None or row["size"] > lot:
            continue
        size, allowed = row["size"], row["allowed"]
        found.append(
            NamedPlan(
                name=table["name"],
                source=table["source"],
                confirmed=table["confirmed"],
                size=size,
                allowed=allowed,
                producers_risk=float(stats.hypergeom.sf(allowed, lot, good, size)),
                consumers_risk=float(stats.hypergeom.cdf(allowed, lot, bad, size)),
            )
        )
    return found


def plans_of(
    lot: int, *, acceptable: float = ACCEPTABLE_QUALITY, limiting: float = LIMITING_QUALITY
) -> LotPlan:
    """Return the plans of a lot.

    Args:
        lot: number of instruments.
        acceptable: share of nonconforming ones of a good lot.
        limiting: share of nonconforming ones of a bad lot.

    Raises: DrawError for a lot of none or shares in the wrong order.
    """
    computed = [
        (
            "2014/32/EU, module F",
            "Directive 2014/32/EU, annex II, module F, computed",
            sampling_plan(lot, acceptable=acceptable, limiting=limiting),
        ),
        (
            "95 % conform",
            "MessEV, section 35, as PTB working group 8.42 reads it: 95 % conform with 95 % "
            "confidence, computed",
            sampling_plan(lot, acceptable=acceptable, limiting=CONFORMING_LOT),
        ),
    ]
    own = []
    good, bad = at_most(acceptable, lot), lot - at_most(1.0 - limiting, lot)
    for name, source, plan in computed:
        own.append(
            NamedPlan(
                name=name,
                source=source,
                confirmed=True,
                size=plan.size,
                allowed=plan.allowed,
                producers_risk=float(stats.hypergeom.sf(plan.allowed, lot, good, plan.size)),
                consumers_risk=float(stats.hypergeom.cdf(plan.allowed, lot, bad, plan.size)),
            )
        )
    looked_up = _looked_up(lot, acceptable=acceptable, limiting=limiting)
    return LotPlan(
        instruments=lot, acceptable=acceptable, limiting=limiting, plans=(*own, *looked_up)
    )


async def lot_plan(connection: AsyncConnection, lot: Mapping[str, str]) -> LotPlan:
    """Return the plans of a lot of the registry.

    Raises: DrawError when it has no instrument.
    """
    instruments = await rows.lot_size(connection, lot)
    if not instruments:
        raise DrawError("no registered instrument is in this lot: check operator, maker and model")
    return plans_of(instruments)
