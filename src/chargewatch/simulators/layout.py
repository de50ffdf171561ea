"""Who stands where in a simulated city: stations, connectors, reference meters, vehicles.

Everything is an array over connectors (n), stations (s) or meters (m). These are the truths that
the registry does not tell (gain errors, efficiencies, ...) beside those that it does.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.simulators.draws import Draws
from chargewatch.simulators.graph import ChargingGraph, charging_graph
from chargewatch.simulators.physics import Physics
from chargewatch.simulators.scenario import Scenario

SITE_TYPES = ("residential", "office", "commercial", "hub")
DC_MODELS_W = (60_000.0, 120_000.0, 180_000.0, 90_000.0)
ONE_PHASE_W = 7_400.0
"""What one phase carries: 32 A at 230 V."""
AC_MODELS_W = (7_000.0, 7_000.0, 11_000.0)
MPE_OF_CLASS = {"1": 0.01, "2": 0.02}


@dataclass(frozen=True, kw_only=True)
class Stations:
    """Arrays of shape (s,)."""

    name: list[str]
    operator: Ints
    site: Ints  # index into SITE_TYPES
    plan: Ints  # index into billing.PLANS
    district: list[str]
    longitude: Floats
    latitude: Floats
    first: Ints  # connectors of station k: first[k] .. first[k + 1] - 1; shape (s + 1,)
    phase_s: Ints  # offset of its readings from the full grid
    auxiliary_w: Floats
    feeder_loss: Floats  # fraction of the feeder's rated power lost at that power
    rated_w: Floats  # sum over connectors

    @property
    def size(self) -> int:
        """Number of stations."""
        return len(self.name)


@dataclass(frozen=True, kw_only=True)
class Connectors:
    """Arrays of shape (n,)."""

    name: list[str]
    pile: list[str]
    station: Ints
    is_dc: Bools
    rated_w: Floats
    model: Ints  # AC: 0 ..; DC: len(AC_MODELS_W) ..
    mpe: Floats
    accuracy_class: list[str]
    resolution_wh: Floats
    compensated: Bools
    popularity: Floats
    register_wh: Floats  # at the start
    gain: Floats
    light: Floats
    temperature_coefficient: Floats  # per kelvin
    aging: Floats  # natural drift, per second
    creep_w: Floats
    cable_loss: Floats  # fraction at rated power, after the meter
    efficiency_shift: Floats  # of this pile against its model
    signs: Bools

    @property
    def size(self) -> int:
        """Number of connectors."""
        return len(self.name)


@dataclass(frozen=True, kw_only=True)
class Meters:
    """Reference meters, arrays of shape (m,); ``connector`` is -1 for a feeder meter."""

    name: list[str]
    station: Ints
    connector: Ints
    is_dc: Bools
    standard_uncertainty: Floats
    bias: Floats
    resolution_wh: Floats
    clock_offset_s: Floats
    register_wh: Floats

    @property
    def size(self) -> int:
        """Number of meters."""
        return len(self.name)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A city before anything happens in it."""

    stations: Stations
    connectors: Connectors
    meters: Meters
    vehicles: int
    roaming_vehicles: int
    physics: Physics
    graph: ChargingGraph | None


@cache
def urbanev_sizes() -> Ints:
    """Return the numbers of piles of 1,362 real stations (UrbanEV, Shenzhen)."""
    path = files("chargewatch.simulators").joinpath("data", "urbanev_shenzhen_stations.csv")
    with path.open("r", encoding="utf-8") as file:
        return np.array([int(row["charge_count"]) for row in csv.DictReader(file)])


@cache
def district_points() -> tuple[list[str], Floats]:
    """Return the codes of Tianjin's districts and points inside each, shape (16, 60, 2)."""
    path = files("chargewatch.simulators").joinpath("data", "tianjin_points.json")
    rows = json.loads(path.read_text("utf-8"))["districts"]
    return [row["district"] for row in rows], np.array([row["points"] for row in rows])


def make_layout(scenario: Scenario, draws: Draws) -> Layout:
    """Return the city of a scenario and seed."""
    graph = charging_graph(scenario.graph, stations=scenario.stations) if scenario.graph else None
    stations = _stations(scenario, draws, graph)
    connectors = _connectors(scenario, draws, stations)
    if graph is not None:
        connectors = replace(connectors, popularity=graph.popularity)
    count = max(stations.size, round(scenario.vehicles_per_connector * connectors.size))
    return Layout(
        stations=_with_rated_power(stations, connectors),
        connectors=connectors,
        meters=_meters(scenario, draws, stations, connectors),
        vehicles=count,
        roaming_vehicles=max(1, round(count * scenario.roaming_share)),
        physics=scenario.physics,
        graph=graph,
    )


def _stations(scenario: Scenario, draws: Draws, graph: ChargingGraph | None) -> Stations:
    k = np.arange(scenario.stations)
    if graph is not None:
        sizes = graph.sizes
    elif scenario.connectors_per_station:
        sizes = np.full(scenario.stations, scenario.connectors_per_station)
    else:
        real = urbanev_sizes()
        sizes = np.clip(real[draws.choice("station size", len(real), k)], 2, 200)
    codes, points = district_points()
    district = draws.choice("district", len(codes), k)
    point = points[district, draws.choice("point", points.shape[1], k)]
    jitter = 0.002 * np.stack([draws.normal("east", k), draws.normal("north", k)], axis=1)
    operator = draws.choice("operator", scenario.operators, k)
    operator[: scenario.operators] = np.arange(scenario.operators)[: scenario.stations]
    return Stations(
        name=[f"TJ{i + 1:05d}" for i in range(scenario.stations)],
        operator=operator,
        site=draws.choice("site", len(SITE_TYPES), k),
        plan=draws.choice("plan", 3, k),
        district=[codes[i] for i in district],
        longitude=np.round(point[:, 0] + jitter[:, 0], 5),
        latitude=np.round(point[:, 1] + jitter[:, 1], 5),
        first=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        phase_s=draws.choice("phase", 30, k),
        auxiliary_w=np.exp(draws.normal("auxiliary", k) * 0.5) * 25 * sizes,
        feeder_loss=0.002
        + scenario.physics.feeder_loss_shift
        + 0.006 * draws.uniform("feeder loss", k),
        rated_w=np.zeros(scenario.stations),
    )


def _with_rated_power(stations: Stations, connectors: Connectors) -> Stations:
    rated = np.bincount(connectors.station, weights=connectors.rated_w, minlength=stations.size)
    return replace(stations, rated_w=rated.astype(np.float64))


def _connectors(scenario: Scenario, draws: Draws, stations: Stations) -> Connectors:
    sizes = np.diff(stations.first)
    station = np.repeat(np.arange(stations.size), sizes)
    position = np.arange(station.size) - stations.first[station]
    # Keyed by station and position: another number of stations changes none of the others.
    key = (station, position)
    # Golden-ratio steps spread the kinds evenly over few stations, too.
    kind = (draws.uniform("station kind", 0) + 0.6180339887 * np.arange(stations.size)) % 1.0
    pure = 1 - scenario.mixed_share
    dc_chance = np.where(kind < pure * scenario.dc_share, 1.0, 0.0)
    dc_chance[kind > 1 - pure * (1 - scenario.dc_share)] = 0.0
    mixed = (kind >= pure * scenario.dc_share) & (kind <= 1 - pure * (1 - scenario.dc_share))
    dc_chance[mixed] = scenario.dc_share
    # Two guns stand on one DC pile, so the kind is drawn by pairs.
    is_dc = draws.uniform("current", station, position // 2) < dc_chance[station]
    dc_model = draws.choice("dc model", len(DC_MODELS_W), station, position // 2)
    ac_model = draws.choice("ac model", len(AC_MODELS_W), *key)
    rated = np.where(is_dc, np.array(DC_MODELS_W)[dc_model], np.array(AC_MODELS_W)[ac_model])
    first_class = is_dc & (draws.uniform("class", station, position // 2) < 0.4)
    mpe = np.where(first_class, MPE_OF_CLASS["1"], MPE_OF_CLASS["2"])
    pile_no = np.where(is_dc, 2 * (position // 2) + 1, position + 1)
    gun = np.where(is_dc, position % 2 + 1, 1)
    piles = [f"{stations.name[s]}-{p:02d}" for s, p in zip(station, pile_no, strict=True)]
    physics = scenario.physics
    truncated = np.clip(draws.normal("gain", *key), -2.5, 2.5)
    return Connectors(
        name=[f"{pile}-{g}" for pile, g in zip(piles, gun, strict=True)],
        pile=piles,
        station=station,
        is_dc=is_dc,
        rated_w=rated,
        model=np.where(is_dc, len(AC_MODELS_W) + dc_model, ac_model),
        mpe=mpe,
        accuracy_class=["1" if first else "2" for first in first_class],
        resolution_wh=np.where(is_dc & (draws.uniform("resolution", *key) < 0.3), 10.0, 1.0),
        compensated=draws.uniform("compensated", *key) < 0.2,
        popularity=np.exp(0.3 * draws.normal("popularity", *key) - 0.045),
        register_wh=np.floor(np.exp(draws.normal("register", *key) * 0.7) * 4e6),
        gain=scenario.gain_sd_mpe * mpe * truncated + physics.model_error,
        light=0.004 * draws.normal("light", *key),
        temperature_coefficient=physics.temperature_spread * draws.normal("temperature", *key),
        aging=physics.ageing_per_year * draws.normal("aging", *key) / (365 * DAY_S),
        creep_w=0.15 * np.abs(draws.normal("creep", *key)),
        cable_loss=np.where(is_dc, physics.dc_cable_loss, physics.ac_cable_loss)
        * (1 + physics.cable_spread * (2 * draws.uniform("cable", *key) - 1)),
        efficiency_shift=np.where(is_dc, physics.dc_pile_spread, physics.ac_pile_spread)
        * draws.normal("pile efficiency", *key),
        signs=draws.uniform("signs", *key) < scenario.signed_share,
    )


def _meters(scenario: Scenario, draws: Draws, stations: Stations, connectors: Connectors) -> Meters:
    k = np.arange(stations.size)
    feeders = k[draws.uniform("has feeder", k) < scenario.reference_share]
    n = np.arange(connectors.size)
    position = n - stations.first[connectors.station]
    in_series = n[draws.uniform("has series", connectors.station, position) < scenario.series_share]
    station = np.concatenate([feeders, connectors.station[in_series]])
    connector = np.concatenate([np.full(feeders.size, -1), in_series]).astype(np.int64)
    key = (station, np.concatenate([np.zeros(feeders.size), 1 + position[in_series]]))
    feeder = connector < 0
    rated = np.bincount(connectors.station, weights=connectors.rated_w, minlength=stations.size)
    # A current transformer's ratio grows with the feeder, and with it the meter's smallest step.
    step = 10.0 ** np.floor(np.log10(np.maximum(rated[station], 1e4) / 1e3))
    u = np.where(feeder, 0.001, 0.0005)
    return Meters(
        name=[
            f"{stations.name[s]}-M{1 if c < 0 else 2 + c - stations.first[s]}"
            for s, c in zip(station, connector, strict=True)
        ],
        station=station,
        connector=connector,
        is_dc=np.where(feeder, False, connectors.is_dc[connector]),
        standard_uncertainty=u,
        bias=u * np.clip(draws.normal("meter bias", *key), -2.5, 2.5),
        resolution_wh=np.where(feeder, np.clip(step, 10, 400), 1.0),
        clock_offset_s=np.round(
            scenario.physics.meter_clock_s + 0.8 * draws.normal("meter clock", *key), 3
        ),
        register_wh=np.floor(1e7 + 9e7 * draws.uniform("meter register", *key)),
    )
