"""The table of faults: what each does, its parameters, and the signals it must raise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Bools
from chargewatch.errors import InputFileError
from chargewatch.signals.registry import RULES
from chargewatch.simulators.draws import Draws
from chargewatch.simulators.fault_kind import FaultKind
from chargewatch.simulators.layout import ONE_PHASE_W, Layout
from chargewatch.simulators.oddities import ODDITIES
from chargewatch.simulators.scenario import Scenario

_REGISTER_WRECK = (
    *(code for code, rule in RULES.items() if rule.explained_by == "unit_fault"),
    "soc_implausible",
    "unit_fault",
    "fee_mismatch",
)

_KINDS = (
    FaultKind(
        name="gain",
        meaning="the meter indicates a constant fraction too much or too little",
        parameters={"magnitude_mpe": 3.0},
        changes_error=True,
    ),
    FaultKind(
        name="light_load",
        meaning="the error grows at light load",
        parameters={"magnitude_mpe": 12.0, "scale": 0.25},
        changes_error=True,
    ),
    FaultKind(
        name="drift",
        meaning="the error grows steadily up to its magnitude at the end",
        parameters={"magnitude_mpe": 3.0, "begin_days": 25.0},
        changes_error=True,
    ),
    FaultKind(
        name="step",
        meaning="the error jumps, as after a tampering",
        parameters={"magnitude_mpe": 3.0, "begin_days": 12.0},
        changes_error=True,
    ),
    FaultKind(
        name="cheat_hours",
        meaning="the meter is wrong only between two hours of the local day",
        parameters={"magnitude_mpe": 3.0, "from_hour": 18.0, "to_hour": 23.0},
        changes_error=True,
    ),
    FaultKind(
        name="cheat_peak",
        meaning="the meter is wrong only in the dearest period of its tariff",
        parameters={"magnitude_mpe": 3.0},
        changes_error=True,
    ),
    FaultKind(
        name="cheat_weekend",
        meaning="the meter is wrong only on Saturdays and Sundays",
        parameters={"magnitude_mpe": 3.0},
        changes_error=True,
    ),
    FaultKind(
        name="cheat_heat",
        meaning="the meter is wrong only in the warmest part of the time",
        parameters={"magnitude_mpe": 3.0, "warmest_part": 0.3},
        changes_error=True,
    ),
    FaultKind(
        name="cheat_high_load",
        meaning="the meter is wrong only above a load",
        needs="varying load",
        parameters={"magnitude_mpe": 3.0, "above_load": 0.7},
        changes_error=True,
    ),
    FaultKind(
        name="cheat_low_load",
        meaning="the meter is wrong only up to a load",
        needs="varying load",
        parameters={"magnitude_mpe": 3.0, "upto_load": 0.5},
        changes_error=True,
    ),
    FaultKind(
        name="cheat_one_phase",
        meaning="the meter of a three-phase AC pile is wrong only at what one phase carries",
        needs="three phases",
        parameters={"magnitude_mpe": 3.0, "upto_w": ONE_PHASE_W},
        changes_error=True,
    ),
    FaultKind(
        name="cheat_after_energy",
        meaning="the meter is wrong only after the first energy of a session",
        parameters={"magnitude_mpe": 3.0, "first_wh": 10_000.0},
        changes_error=True,
    ),
    FaultKind(
        name="cheat_short_session",
        meaning="the meter is wrong only in sessions shorter than a time",
        needs="DC",
        parameters={"magnitude_mpe": 3.0, "shorter_min": 30.0},
        changes_error=True,
    ),
    FaultKind(
        name="cheat_unless_verified",
        meaning="the meter is right only at a verification's steady full load; one found it right",
        needs="varying load",
        parameters={
            "magnitude_mpe": 3.0,
            "full_load": 0.9,
            "settle_min": 5.0,
            "verified_days": 10.0,
        },
        changes_error=True,
    ),
    FaultKind(
        name="stuck",
        meaning="the register stands still while power flows",
        parameters={"begin_days": 8.0, "length_days": 3.0},
        signals=("stuck_register",),
        allowed=("power_register_mismatch", "soc_implausible", "unit_fault"),
    ),
    FaultKind(
        name="rollover",
        meaning="the register starts again at 0 without saying so, as when its digits run out",
        parameters={"begin_days": 9.0},
        signals=("register_decrease",),
        allowed=("register_discontinuity",),
    ),
    FaultKind(
        name="reset",
        meaning="the register is set back by a part of its value without saying so",
        parameters={"begin_days": 7.0, "part": 0.3},
        signals=("register_decrease",),
        allowed=("register_discontinuity",),
    ),
    FaultKind(
        name="declared_reset",
        meaning="the register starts again at 0 and says so: no fault to raise",
        parameters={"begin_days": 8.0},
    ),
    FaultKind(
        name="jitter",
        meaning="the register wavers by its last digit from reading to reading",
        signals=("register_jitter",),
    ),
    FaultKind(
        name="jump",
        meaning="the register leaps ahead between two sessions",
        parameters={"begin_days": 5.0, "energy_wh": 400_000.0},
        signals=("register_jump",),
        allowed=("idle_consumption", "register_discontinuity", "unit_fault"),
    ),
    FaultKind(
        name="unit",
        meaning="kWh are sent where Wh are asked for",
        parameters={"begin_days": 4.0, "length_days": 4.0},
        signals=("unit_fault",),
        allowed=_REGISTER_WRECK,
    ),
    FaultKind(
        name="clock",
        meaning="the gateway's clock is off; it says so in its status",
        on="station",
        parameters={"offset_s": 400.0},
        signals=("clock_skew",),
    ),
    FaultKind(
        name="tou_clock",
        meaning="the billing clock is off, so energy is billed at another period's price",
        parameters={"offset_s": 1800.0},
        signals=("tariff_mismatch",),
    ),
    FaultKind(
        name="loss_billing",
        meaning="the bill is the metered energy times a loss ratio; the meter is fine",
        parameters={"ratio": 1.05},
        signals=("loss_adjusted_billing",),
        allowed=("session_register_mismatch",),
    ),
    FaultKind(
        name="fee",
        meaning="fees of some sessions are higher than energy times price",
        parameters={"share": 0.3, "extra": 0.02},
        signals=("fee_mismatch",),
    ),
    FaultKind(
        name="tariff",
        meaning="the prices of its sessions are above the registered tariff",
        parameters={"extra": 0.08},
        signals=("tariff_mismatch",),
    ),
    FaultKind(
        name="billed",
        meaning="some sessions bill more energy than their registers show",
        parameters={"share": 0.3, "extra_wh": 900.0},
        signals=("session_register_mismatch",),
        allowed=("loss_adjusted_billing",),
    ),
    FaultKind(
        name="zero_baseline",
        meaning="some sessions begin at register 0: the register's whole life is billed",
        parameters={"share": 0.3},
        signals=("zero_baseline",),
        allowed=("session_register_mismatch", "register_discontinuity", "tariff_mismatch"),
    ),
    FaultKind(
        name="leak",
        meaning="the meter creeps: it counts energy while no vehicle charges",
        parameters={"power_w": 8.0},
        signals=("idle_consumption",),
        allowed=("register_discontinuity",),
    ),
    FaultKind(
        name="withheld",
        meaning="some sessions are not told, neither as a session nor in the readings",
        parameters={"share": 0.3},
        signals=("idle_consumption",),
        allowed=("register_discontinuity", "signature_pagination_gap"),
    ),
    FaultKind(
        name="power",
        meaning="the power that is told is not the power that is metered",
        parameters={"factor": 0.85},
        signals=("power_register_mismatch",),
    ),
    FaultKind(
        name="soc",
        meaning="the capacity that is told is impossible for energy and SOC",
        needs="DC",
        parameters={"factor": 3.0},
        signals=("soc_implausible",),
    ),
    FaultKind(
        name="missing",
        meaning="a share of the messages is lost on the way",
        on="station",
        parameters={"share": 0.02},
        signals=("missing_messages",),
        allowed=("session_register_mismatch", "register_discontinuity", "idle_consumption"),
    ),
    FaultKind(
        name="duplicate",
        meaning="a share of the messages is sent twice: no fault to raise",
        on="station",
        parameters={"share": 0.1},
    ),
    FaultKind(
        name="late",
        meaning="messages wait through an outage and come all at once, in order",
        on="station",
        parameters={"begin_days": 3.0, "length_days": 0.5},
    ),
    FaultKind(
        name="reordered",
        meaning="messages overtake each other by hours",
        on="station",
        parameters={"share": 0.2, "delay_s": 14_400.0},
    ),
    FaultKind(
        name="conflict",
        meaning="some readings are sent again with another value",
        parameters={"share": 0.01, "extra_wh": 250.0},
        signals=("conflict",),
    ),
    FaultKind(
        name="offline",
        meaning="the station's gateway is silent until the end",
        on="station",
        parameters={"begin_days": 2.0},
        signals=("silence",),
    ),
    FaultKind(
        name="silent",
        meaning="one connector's readings stop, until the end",
        parameters={"begin_days": 2.0},
        signals=("silence",),
    ),
    FaultKind(
        name="unregistered",
        meaning="a connector that is not in the registry sells energy",
        signals=("unregistered_instrument",),
        allowed=("verification_expired", "tariff_mismatch"),
    ),
    FaultKind(
        name="expired",
        meaning="the verification has run out and energy is sold on",
        parameters={"begin_days": 20.0},
        signals=("verification_expired",),
    ),
    FaultKind(
        name="unverified",
        meaning="there never was a verification",
        signals=("verification_expired",),
    ),
    FaultKind(
        name="forged",
        meaning="signed records are changed after they were signed",
        needs="signature",
        parameters={"share": 0.3, "extra_kwh": 1.5},
        signals=("signature_invalid",),
        allowed=("session_register_mismatch",),
    ),
    FaultKind(
        name="replayed",
        meaning="an old signed record stands in for the one of this session",
        needs="signature",
        parameters={"share": 0.3},
        signals=("signature_pagination_gap",),
        allowed=("signature_invalid", "signed_record_mismatch", "session_register_mismatch"),
    ),
)

FAULTS: Mapping[str, FaultKind] = {kind.name: kind for kind in (*_KINDS, *ODDITIES)}
"""Every fault and oddity by name."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault on one connector or station, with its parameters."""

    kind: FaultKind
    target: int
    parameters: Mapping[str, Any]

    def __contains__(self, name: str) -> bool:
        """Return whether it has a parameter."""
        return name in self.parameters

    def __getitem__(self, name: str) -> Any:
        """Return a parameter."""
        return self.parameters[name]


class Faults:
    """Which connector and station has which fault."""

    def __init__(self, faults: list[Fault]) -> None:
        self.all = faults
        # How often a fault really struck; one that never did can't be found.
        self.struck: Counter[tuple[str, int]] = Counter()
        self.of_connector: dict[int, list[Fault]] = {}
        self.of_station: dict[int, list[Fault]] = {}
        for fault in faults:
            index = self.of_connector if fault.kind.on == "connector" else self.of_station
            index.setdefault(fault.target, []).append(fault)

    def strike(self, name: str, target: int, times: int = 1) -> None:
        """Count that a fault had an effect on what is published."""
        self.struck[name, target] += times

    def of_kind(self, name: str) -> dict[int, Fault]:
        """Return target to fault for one kind."""
        return {x.target: x for x in self.all if x.kind.name == name}


def assign_faults(scenario: Scenario, draws: Draws, layout: Layout) -> Faults:
    """Return the faults of a scenario on targets drawn at random, one fault a target.

    Stations are drawn before connectors, and connectors only where the station has no fault, as
    long as there are such. Raises: InputFileError for an unknown fault or parameter.
    """
    taken_stations: set[int] = set()
    taken: set[int] = set()
    found: list[Fault] = []
    specs = [(k, spec, _kind(spec.fault)) for k, spec in enumerate(scenario.faults)]
    for number, spec, kind in sorted(specs, key=lambda x: x[2].on != "station"):
        unknown = set(spec.parameters) - set(kind.parameters)
        if unknown:
            raise InputFileError(
                f"fault {kind.name}: no parameter {', '.join(sorted(unknown))}; "
                f"known: {', '.join(sorted(kind.parameters)) or 'none'}"
            )
        parameters = {**kind.parameters, **spec.parameters}
        if kind.on == "station":
            order = np.argsort(
                draws.uniform(f"fault {kind.name}", number, np.arange(layout.stations.size))
            )
            free = [int(k) for k in order if int(k) not in taken_stations]
            chosen = free[: _count(spec.count, spec.share, layout.stations.size)]
            taken_stations.update(chosen)
        else:
            chosen = _connectors(draws, layout, (number, spec, kind), (taken, taken_stations))
            taken.update(chosen)
        found += [Fault(kind=kind, target=k, parameters=parameters) for k in chosen]
    return Faults(found)


def _count(count: int, share: float, size: int) -> int:
    return count or round(share * size)


def _connectors(
    draws: Draws,
    layout: Layout,
    entry: tuple[int, Any, FaultKind],
    taken: tuple[set[int], set[int]],
) -> list[int]:
    number, spec, kind = entry
    connectors = layout.connectors
    fits = np.ones(connectors.size, dtype=bool)
    if spec.current:
        fits &= connectors.is_dc == (spec.current == "DC")
    fits &= _having(layout, kind.needs)
    order = np.argsort(draws.uniform(f"fault {kind.name}", number, np.arange(connectors.size)))
    free = [int(i) for i in order if fits[i] and int(i) not in taken[0]]
    clean = [i for i in free if int(connectors.station[i]) not in taken[1]]
    wanted = _count(spec.count, spec.share, connectors.size)
    return (clean + [i for i in free if i not in set(clean)])[:wanted]


def _having(layout: Layout, what: str) -> Bools:
    """Return which connectors have what a fault needs."""
    connectors = layout.connectors
    three_phases = ~connectors.is_dc & (connectors.rated_w > ONE_PHASE_W)
    kinds: dict[str, Bools] = {
        "": np.ones(connectors.size, dtype=bool),
        "signature": connectors.signs,
        "DC": connectors.is_dc,
        "three phases": three_phases,
        "fine register": connectors.resolution_wh == 1,
        # Vehicles take what the pile of one phase offers, nearly always.
        "varying load": connectors.is_dc | three_phases,
    }
    return kinds[what]


def _kind(name: str) -> FaultKind:
    if name not in FAULTS:
        raise InputFileError(f"no fault {name!r}; known: {', '.join(sorted(FAULTS))}")
    return FAULTS[name]
