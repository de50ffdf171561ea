"""What a wrong prior costs: cities whose truth lies two standard deviations from what is believed.

A prior that equals the simulator's constants proves nothing. Each shift moves one constant of a
simulated city's nature to the prior's mean + 2 u (or - 2 u). A prior of a spread that counts as k
cases has a relative standard deviation of 1 / sqrt(2 k); where nothing says how sure a prior is,
two standard deviations are a factor of two. The city's other random numbers stay the same, so a
shifted city is compared with the usual one of its seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from chargewatch.errors import InputFileError
from chargewatch.evaluation.city_inputs import known_inputs
from chargewatch.evaluation.kinds import EVERY_KIND, Sums, figures, sums_by_kind
from chargewatch.evaluation.seeds import compared_with
from chargewatch.risk import priors
from chargewatch.risk.engine import assess
from chargewatch.risk.results import EngineConfig
from chargewatch.simulators.city import make_city
from chargewatch.simulators.metering import DC_CURVES
from chargewatch.simulators.physics import Physics
from chargewatch.simulators.scenario import FaultSpec, Scenario, load_scenario
from chargewatch.simulators.wire_form import OFFSET_S

USUAL = "usual"
SIGMAS = 2.0
UNSAID = 2.0
"""Factor that stands for two standard deviations where nothing says how sure a prior is."""
BMS_AC = 0
MEAN_BEST, MEAN_LIGHT_LOSS, MEAN_LIGHT_SCALE, MEAN_FULL_LOSS = DC_CURVES.mean(axis=0).tolist()
MEAN_FEEDER_LOSS = 0.005
MEAN_AUXILIARY_W = 283.0
"""Of a station of ten connectors: 25 W each, times the mean of a log-normal of 0.5."""
SLOW_WAVES = 3
OFFENDER_MPE = (-3.0, -1.5, 1.5, 3.0)


@dataclass(frozen=True, kw_only=True)
class Shift:
    """One prior and the constant of nature that is moved away from it."""

    prior: str  # as in `risk.priors`
    truth: str  # as it is in the shifted city
    change: Callable[[Scenario], Scenario]


def _wider(counts: float) -> float:
    return 1.0 + SIGMAS / math.sqrt(2.0 * counts)


def _physics(**constants: float) -> Callable[[Scenario], Scenario]:
    def changed(scenario: Scenario) -> Scenario:
        return replace(scenario, physics=replace(scenario.physics, **constants))

    return changed


def _of_physics(prior: str, truth: str, **constants: float) -> Shift:
    return Shift(prior=prior, truth=truth, change=_physics(**constants))


def _away(prior: priors.Believed, *, sign: float = 1.0) -> float:
    return prior.mean + sign * SIGMAS * prior.u


def _more_offenders(scenario: Scenario) -> Scenario:
    """Return the scenario with so many more offenders that the bulk is 2 sigma smaller."""
    counts = float(priors.SHARE_COUNTS.sum())
    bulk = float(priors.SHARE_START[0])
    share = 1.0 - bulk + SIGMAS * math.sqrt(bulk * (1.0 - bulk) / (counts + 1.0))
    more = tuple(
        FaultSpec(
            fault="gain", share=share / len(OFFENDER_MPE), parameters={"magnitude_mpe": magnitude}
        )
        for magnitude in OFFENDER_MPE
    )
    return replace(scenario, faults=scenario.faults + more)


def _wider_bulk(scenario: Scenario) -> Scenario:
    spread = float(priors.PART_SPREAD_START[0]) * _wider(priors.PART_SPREAD_COUNTS)
    return replace(scenario, gain_sd_mpe=spread)


def _more_garbage(scenario: Scenario) -> Scenario:
    return replace(scenario, garbage_share=UNSAID * priors.GARBAGE_SHARE)


def _shifts() -> dict[str, Shift]:
    dc, light = priors.DC_EFFICIENCY, priors.CONVERTER_LIGHT_LOSS
    dc_spread = priors.DC_SPREAD_START * _wider(priors.SPREAD_COUNTS)
    sessions = float(priors.SESSION_SPREAD_START[BMS_AC]) * _wider(priors.SPREAD_COUNTS)
    scales = float(priors.VEHICLE_START[BMS_AC]) * _wider(priors.SPREAD_COUNTS)
    # Half a width w makes a standard deviation of w / sqrt(3).
    site = float(priors.SITE_SPREAD_START[0]) * priors.SITE_FACTOR**SIGMAS
    cables = site / Physics.ac_cable_loss * math.sqrt(3.0)
    wander = priors.ANCHOR_DRIFT_PER_YEAR * priors.WANDER_FACTOR**SIGMAS
    wave = SIGMAS * priors.AUXILIARY_WAVE.u / MEAN_AUXILIARY_W
    slow = priors.WANDER_START_W * UNSAID * math.sqrt(2.0 / SLOW_WAVES) / MEAN_AUXILIARY_W
    full = _away(priors.CONVERTER_LOAD_LOSS)
    return {
        "dc-efficiency-low": _of_physics(
            "DC_EFFICIENCY",
            f"{_away(dc, sign=-1.0):.3f}",
            dc_efficiency_shift=_away(dc, sign=-1.0) - MEAN_BEST,
        ),
        "dc-efficiency-high": _of_physics(
            "DC_EFFICIENCY", f"{_away(dc):.3f}", dc_efficiency_shift=_away(dc) - MEAN_BEST
        ),
        "dc-spread": _of_physics("DC_SPREAD_START", f"{dc_spread:.4f}", dc_pile_spread=dc_spread),
        "dc-light-loss": _of_physics(
            "CONVERTER_LIGHT_LOSS",
            f"{_away(light):.2f}",
            dc_light_loss_factor=_away(light) / MEAN_LIGHT_LOSS,
        ),
        "dc-light-scale": _of_physics(
            "LIGHT_LOSS_SCALE",
            f"{UNSAID * priors.LIGHT_LOSS_SCALE:.2f}",
            dc_light_scale_factor=UNSAID * priors.LIGHT_LOSS_SCALE / MEAN_LIGHT_SCALE,
        ),
        "dc-full-loss": _of_physics(
            "CONVERTER_LOAD_LOSS", f"{full:.3f}", dc_full_loss_factor=full / MEAN_FULL_LOSS
        ),
        "dc-idle-loss": _of_physics(
            "CONVERTER_IDLE_LOSS",
            f"{_away(priors.CONVERTER_IDLE_LOSS):.3f}",
            dc_idle_loss=_away(priors.CONVERTER_IDLE_LOSS),
        ),
        "ac-efficiency-low": _of_physics(
            "AC_EFFICIENCY",
            f"{_away(priors.AC_EFFICIENCY, sign=-1.0):.4f}",
            ac_efficiency=_away(priors.AC_EFFICIENCY, sign=-1.0),
        ),
        "ac-efficiency-one": _of_physics("AC_EFFICIENCY", "1", ac_efficiency=1.0),
        "ac-spread": _of_physics(
            "AC_SPREAD",
            f"{UNSAID * priors.AC_SPREAD:.4f}",
            ac_pile_spread=UNSAID * priors.AC_SPREAD,
        ),
        "feeder-loss": _of_physics(
            "FEEDER_LOSS",
            f"{_away(priors.FEEDER_LOSS):.3f}",
            feeder_loss_shift=_away(priors.FEEDER_LOSS) - MEAN_FEEDER_LOSS,
        ),
        "auxiliary-waves": _of_physics(
            "AUXILIARY_WAVE", f"{SIGMAS * priors.AUXILIARY_WAVE.u:.0f} W", auxiliary_swing=wave
        ),
        "auxiliary-wander": _of_physics(
            "WANDER_START_W", f"{UNSAID * priors.WANDER_START_W:.0f} W", auxiliary_wander=slow
        ),
        "feeder-clock": _of_physics(
            "FEEDER_CLOCK",
            f"{_away(priors.FEEDER_CLOCK):.0f} s",
            meter_clock_s=_away(priors.FEEDER_CLOCK),
        ),
        "ac-cable": _of_physics(
            "CABLE_LOSS", f"{_away(priors.CABLE_LOSS):.3f}", ac_cable_loss=_away(priors.CABLE_LOSS)
        ),
        "dc-cable": _of_physics(
            "CABLE_LOSS", f"{_away(priors.CABLE_LOSS):.3f}", dc_cable_loss=_away(priors.CABLE_LOSS)
        ),
        "cable-spread": _of_physics(
            "SITE_SPREAD_START",
            f"{site:.4f}",
            cable_spread=cables,
        ),
        "sessions": _of_physics("SESSION_SPREAD_START", f"{sessions:.3f}", bms_noise=sessions),
        "vehicles": _of_physics("VEHICLE_START", f"{scales:.3f}", bms_scale_spread=scales),
        "wander": _of_physics(
            "ANCHOR_DRIFT_PER_YEAR", f"{wander:.3f} a year", ageing_per_year=wander
        ),
        "day-wander": _of_physics(
            "DAY_WANDER_MPE",
            f"{UNSAID * priors.DAY_WANDER_MPE:.1f} MPE for 8 K",
            temperature_spread=UNSAID * priors.DAY_WANDER_MPE * priors.UNKNOWN_MPE / 8.0,
        ),
        "models": _of_physics(
            "MODEL_MEAN_SPREAD",
            f"{SIGMAS * priors.MODEL_MEAN_SPREAD:.3f}, all models",
            model_error=SIGMAS * priors.MODEL_MEAN_SPREAD,
        ),
        "bulk": Shift(
            prior="PART_SPREAD_START",
            truth=f"{float(priors.PART_SPREAD_START[0]) * _wider(priors.PART_SPREAD_COUNTS):.2f}"
            " MPE",
            change=_wider_bulk,
        ),
        "offenders": Shift(
            prior="SHARE_START", truth="18 % off by 1.5 or 3 MPE", change=_more_offenders
        ),
        "garbage": Shift(
            prior="GARBAGE_SHARE",
            truth=f"{UNSAID * priors.GARBAGE_SHARE:.2f}",
            change=_more_garbage,
        ),
    }


SHIFTS: Mapping[str, Shift] = MappingProxyType(_shifts())
"""Every shift by name."""


def chosen_shifts(names: tuple[str, ...]) -> dict[str, Shift]:
    """Return shifts by name, ``all`` for every one. Raises: InputFileError that lists them."""
    if "all" in names:
        return dict(SHIFTS)
    unknown = sorted(set(names) - set(SHIFTS))
    if unknown:
        raise InputFileError(
            f"no prior shift {', '.join(unknown)}; known: all, {', '.join(SHIFTS)}"
        )
    return {name: SHIFTS[name] for name in names}


def _judged(scenario: Scenario, *, seed: int, to: datetime | None) -> list[Sums]:
    known = known_inputs(make_city(scenario, seed=seed, to=to))
    result = assess(known.inputs, config=EngineConfig(utc_offset_s=OFFSET_S))
    return sums_by_kind(compared_with(result, known))


def _figures(cities: list[list[Sums]]) -> dict[str, Any]:
    every = [sums for city in cities for sums in city if sums.kind == EVERY_KIND]
    found = figures(every)
    bias = {
        current: figures([sums for sums in every if sums.current == current])["bias"]
        for current in ("AC", "DC")
    }
    return {
        "connectors": found["connectors"],
        "identified": found["identified"],
        "rmse": found["rmse"],
        "rmse_over_u": math.sqrt(found["mean_squared_z"]),
        "coverage": found["coverage"]["value"],
        "bias_ac": bias["AC"],
        "bias_dc": bias["DC"],
        "red": found["false_flags"]["of"],
        "false_red": found["false_flags"]["part"],
        "offenders": found["recall_1_5_mpe"]["of"],
        "found": found["recall_1_5_mpe"]["part"],
    }


def prior_shift_figures(
    name: str,
    *,
    shifts: Mapping[str, Shift],
    seeds: range,
    to: datetime | None,
    overrides: Mapping[str, Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Return the figures of a scenario as it is and with each shift, on the same seeds."""
    scenario = load_scenario(name, **overrides)
    rows = []
    whole: dict[str, Shift | None] = {USUAL: None, **shifts}
    for shift_name, shift in whole.items():
        shifted = scenario if shift is None else shift.change(scenario)
        cities = [_judged(shifted, seed=seed, to=to) for seed in seeds]
        rows.append(
            {
                "shift": shift_name,
                "prior": None if shift is None else shift.prior,
                "truth": None if shift is None else shift.truth,
                **_figures(cities),
            }
        )
        say(f"{name}: {shift_name}, {len(rows)} of {len(whole)}")
    return {
        "scenario": name,
        "seeds": len(seeds),
        "first_seed": seeds.start,
        "prior_shifts": rows,
    }
