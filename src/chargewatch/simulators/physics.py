"""The constants of nature of a simulated city: what its piles, cables, cars and meters are like.

None of them is a prior of the engine, though some are near one. `chargewatch evaluate
--prior-shift` moves them away from what the engine believes; `--set physics.NAME=VALUE` does the
same by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from chargewatch.errors import InputFileError


@dataclass(frozen=True, kw_only=True)
class Physics:
    """Relative quantities are fractions."""

    dc_efficiency_shift: float = 0.0  # of every DC model's best efficiency
    dc_light_loss_factor: float = 1.0  # on every DC model's loss towards no load
    dc_light_scale_factor: float = 1.0  # on the load below which that loss counts
    dc_full_loss_factor: float = 1.0  # on the loss that grows with the square of the load
    dc_idle_loss: float = 0.0  # constant while the pile delivers, of its rated power
    dc_pile_spread: float = 0.004  # of the efficiency between piles of a model
    ac_efficiency: float = 0.9985
    ac_pile_spread: float = 0.0005
    ac_cable_loss: float = 0.0045  # after the meter, at full load
    dc_cable_loss: float = 0.003
    cable_spread: float = 0.2  # half the width of the range of cables' losses, of the loss
    feeder_loss_shift: float = 0.0  # on 0.2 to 0.8 %
    model_error: float = 0.0  # mean error of the meters of every model
    ageing_per_year: float = 2e-3  # standard deviation of a meter's own drift
    temperature_spread: float = 0.7e-4  # of meters' temperature coefficients, per kelvin
    bms_scale_spread: float = 0.010  # between vehicles' energy integrals
    bms_noise: float = 0.004  # of a session's
    auxiliary_swing: float = 0.45  # of the auxiliaries over the day
    auxiliary_wander: float = 0.10  # of each of three slow waves
    meter_clock_s: float = 0.0  # by which feeder meters' clocks are ahead


USUAL_PHYSICS = Physics()


def physics_from(values: Mapping[str, Any], *, scenario: str) -> Physics:
    """Return constants by name. Raises: InputFileError that lists the known names."""
    known = [field.name for field in fields(Physics)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InputFileError(
            f"scenario {scenario}: no constant physics.{', physics.'.join(unknown)}; "
            f"known: {', '.join(known)}"
        )
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputFileError(f"scenario {scenario}: physics.{name} is a number, not {value!r}")
    return Physics(**{name: float(value) for name, value in values.items()})
