"""Scenarios: TOML files of this package, with parameters that can be overridden."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from chargewatch.errors import InputFileError
from chargewatch.simulators.physics import USUAL_PHYSICS, Physics, physics_from
from chargewatch.simulators.wire_form import HOME_ZONE


@dataclass(frozen=True, kw_only=True)
class FaultSpec:
    """One line of a scenario's list of faults: which, how many, with which parameters."""

    fault: str
    count: int = 0
    share: float = 0.0
    current: str = ""  # "AC" or "DC": only connectors of that kind
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What a simulated city is like; every field can be set in a TOML file or with --set."""

    name: str = ""
    title: str = ""
    days: int = 30
    stations: int = 12
    connectors_per_station: int = 10  # 0: sizes of real stations (UrbanEV, Shenzhen)
    operators: int = 4
    graph: str = ""  # who charges where as in real data: "workplace"
    dc_share: float = 0.5
    mixed_share: float = 0.2  # stations with both AC and DC
    vehicles_per_connector: float = 4.0
    roaming_share: float = 0.3
    sessions_per_day_ac: float = 1.6
    sessions_per_day_dc: float = 6.0
    reference_share: float = 1.0  # stations with a feeder meter
    series_share: float = 0.0  # connectors with a reference meter in series
    anchor_share: float = 0.4  # verifications that state their error
    signed_share: float = 0.2  # connectors that sign their sessions (OCMF)
    ac_soc_share: float = 0.3  # vehicles that tell their SOC on AC
    bms_share: float = 1.0  # of makes of vehicles, that tell the energy their BMS counted
    capacity_share: float = 0.0  # of makes that tell SOC and capacity only; the rest SOC alone
    soc_step_pct: float = 1.0  # of the SOC that is told
    soc_noise: float = 0.0  # of the SOC shown as a session begins and as it ends, of the capacity
    soc_reserve: float = 0.0  # of a capacity at most, charged while the SOC shows 100 % already
    garbage_share: float = 0.0  # sessions whose vehicle tells nonsense of its battery
    gain_sd_mpe: float = 0.25  # spread of healthy meters, in MPE
    charging_cadence_s: int = 300
    idle_cadence_s: int = 1800
    message_s: int = 3600
    reference_cadence_s: int = 900
    reference_message_s: int = 21_600
    time_zone: str = HOME_ZONE  # of tariffs and of the times that are told
    electrical: bool = False  # voltage and current in the readings
    physics: Physics = USUAL_PHYSICS
    faults: tuple[FaultSpec, ...] = ()


def scenario_names() -> list[str]:
    """Return the names of all scenarios that ship with chargewatch."""
    folder = files("chargewatch.simulators").joinpath("scenarios")
    return sorted(x.name.removesuffix(".toml") for x in folder.iterdir() if x.name.endswith("toml"))


def load_scenario(name: str, **overrides: Any) -> Scenario:
    """Return a scenario by name with parameters overridden.

    Raises: InputFileError that lists the known names or parameters.
    """
    if name not in scenario_names():
        raise InputFileError(
            f"no scenario {name!r}; known: {', '.join(scenario_names())}, real-sessions"
        )
    text = files("chargewatch.simulators").joinpath("scenarios", f"{name}.toml").read_text("utf-8")
    rows = tomllib.loads(text)
    return _built({"name": name, **rows, **overrides})


def with_faults(scenario: Scenario, *faults: FaultSpec) -> Scenario:
    """Return the scenario with these faults and no others."""
    return replace(scenario, faults=faults)


def parse_overrides(assignments: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of ``--set name=value``; a value is read as TOML, else as a text."""
    found: dict[str, Any] = {}
    for assignment in assignments:
        name, sign, value = assignment.partition("=")
        if not sign:
            raise InputFileError(f"--set {assignment}: write name=value, for example days=7")
        try:
            found[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[name.strip()] = value
    return found


def _with_physics(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with all of ``physics.NAME`` as one."""
    prefix = "physics."
    plain = {name: value for name, value in values.items() if not name.startswith(prefix)}
    dotted = {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix)
    }
    if dotted:
        plain["physics"] = {**plain.get("physics", {}), **dotted}
    return plain


def _built(told: Mapping[str, Any]) -> Scenario:
    values = _with_physics(told)
    known = {option.name: option for option in fields(Scenario)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InputFileError(
            f"scenario {values['name']}: no parameter {', '.join(unknown)}; "
            f"known: {', '.join(sorted(known))}"
        )
    checked = dict(values)
    for name, value in values.items():
        default = known[name].default
        if name == "faults":
            checked[name] = tuple(_fault_spec(row) for row in value)
        elif name == "physics" and isinstance(value, Mapping):
            checked[name] = physics_from(value, scenario=values["name"])
        elif isinstance(default, float) and isinstance(value, int | float):
            checked[name] = float(value)
        elif type(value) is not type(default):
            raise InputFileError(
                f"scenario {values['name']}: {name} is a {type(default).__name__}, not {value!r}"
            )
    if "time_zone" in checked:
        _check_zone(checked["time_zone"])
    for name in ("days", "stations", "operators", "charging_cadence_s", "message_s"):
        if name in checked and checked[name] <= 0:
            raise InputFileError(f"scenario {values['name']}: {name} must be greater than 0")
    return Scenario(**checked)


def _check_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise InputFileError(
            f"time_zone {name!r}: no such zone; write one such as Europe/Berlin"
        ) from exc


def _fault_spec(row: FaultSpec | str | Mapping[str, Any]) -> FaultSpec:
    if isinstance(row, FaultSpec):
        return row
    if isinstance(row, str):
        name, _, count = row.partition(":")
        return FaultSpec(fault=name, count=int(count or 1))
    own = {"fault", "count", "share", "current"}
    if "count" in row:
        # Who has the fault is told already: a share is how often it strikes.
        own.remove("share")
    parameters = {name: value for name, value in row.items() if name not in own}
    return FaultSpec(**{k: v for k, v in row.items() if k in own}, parameters=parameters)
