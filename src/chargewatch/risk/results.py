"""What one risk run returns and the numbers that steer it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from numpy.typing import NDArray

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.reason import Reasons
from chargewatch.domain.verdict import Verdict
from chargewatch.risk.decision import Population
from chargewatch.risk.priors import (
    ANCHOR_DRIFT_PER_YEAR,
    CHANGES_PER_YEAR,
    METER_FAULT_PRIOR,
    MODEL_MEAN_SPREAD,
)
from chargewatch.risk.situation_errors import SituationError

BUDGET_COMPONENTS: tuple[str, ...] = (
    "statistics",
    "reference_meter",
    "register_resolution",
    "synchronisation",
    "efficiency_prior",
    "soc_resolution",
    "gauge",
)
"""Columns of the uncertainty budget (docs/metrology.md, section on uncertainty)."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Numbers that steer the engine; relative quantities are fractions."""

    half_life_days: float = 14.0
    """Age at which a day's data weigh half for the present error."""
    p_nonconforming: float = 0.95
    p_conforming: float = 0.05
    changes_per_year: float = CHANGES_PER_YEAR
    """Share of connectors whose error changes in a year, before any data."""
    drift_probability: float = 0.9
    """Probability of a change from which on there is a drift alarm."""
    drift_days: int = 45
    """Days of daily estimates that are kept to date a change."""
    anchor_drift_per_year: float = ANCHOR_DRIFT_PER_YEAR
    """Standard deviation of an error's wander one year after a verification."""
    model_mean_spread: float = MODEL_MEAN_SPREAD
    """Standard deviation of the mean error of one model of pile around zero, before any data."""
    meter_fault_prior: float = METER_FAULT_PRIOR
    """Share of reference meters that are wrong by far more than their certificate."""
    energy_price: float = 0.8
    """Money per kWh where sessions tell no price."""
    draws: int = 16
    """Right-hand sides for the Monte Carlo part of the variances."""
    seed: int = 20260301
    settled_u: float = 0.01
    """Rounds of reweighting and empirical Bayes end when one moves no estimate and no uncertainty
    by more than this share of the uncertainty; what is left then is below 0.02."""
    most_rounds: int = 40
    round_sessions: int = 75_000_000
    """Rounds times sessions at most: in a city of 3 million sessions they end after 25."""
    utc_offset_s: float = 0.0
    """Local time less UTC, for the hours and weekends of situations."""
    min_sessions: int = 5
    """Fewer sessions than this are no evidence of their own."""


@dataclass(frozen=True, kw_only=True)
class PastErrors:
    """What connectors' errors were before, shape (n,)."""

    error: Floats
    """Before the last dated change; NaN without one."""
    standard_uncertainty: Floats
    goes_on: Bools
    """The change went on from its beginning up to the run, instead of being a step."""
    replaced_s: Floats
    """Nothing is known of the meter before that; -inf: it was not replaced."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Errors, uncertainties and decisions of one run.

    Arrays have shape (n,) over the connectors of the fleet, (m,) over the reference meters.
    NaN means "not known": a relative_error that the data can't identify, a time that is none.
    """

    as_of_s: float
    relative_error: Floats
    standard_uncertainty: Floats
    common_uncertainty: Floats
    relative_error_light: Floats
    """At light load, below I_min; NaN where the data don't carry it."""
    standard_uncertainty_light: Floats
    p_nonconforming: Floats
    verdict: tuple[Verdict, ...]
    reason: tuple[Reasons, ...]
    n_intervals: Ints
    n_sessions: Ints
    n_vehicles: Ints
    n_direct: Ints
    data_from_s: Floats
    data_to_s: Floats
    method: tuple[str, ...]
    """Evidence that bore on the estimate, such as "balance+vehicles"; "" for none."""
    overcharge_per_month: Floats
    """Expected overcharge beyond the MPE, E[max(0, eps - MPE)] x energy x price, per 30 days.
    NaN where the error can't be identified."""
    population: Population
    """Errors of the city as they are known before a connector's own evidence."""
    past: PastErrors
    budget_components: tuple[str, ...]
    budget: Floats
    """Standard uncertainties, shape (n, c); their root sum of squares is standard_uncertainty."""
    drift_alarm: Bools
    drift_statistic: Floats
    """Natural logarithm of the odds that the error has changed within the days kept.
    NaN where no change could be seen: fewer than three days with data on either side."""
    drift_changed_s: Floats
    drift_low_s: Floats
    drift_high_s: Floats
    situations: tuple[SituationError, ...]
    """Where connectors err otherwise than usual, the relative_error is over all their energy."""
    meter_shift: Floats
    """Estimated relative error of the reference meter, indicated against true."""
    meter_shift_u: Floats
    meter_suspect: Bools
    summary: Mapping[str, float]
    """expected_false_flags, expected_missed, spreads estimated, counts."""
    state: Mapping[str, NDArray] = field(repr=False)  # type: ignore[type-arg]
    """Sufficient statistics with which the next nightly run continues."""
