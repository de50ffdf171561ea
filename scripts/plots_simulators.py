"""Draws the figures of docs/simulators.md into docs/img: `python scripts/plots_simulators.py`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from chargewatch.domain.times import DAY_S
from chargewatch.simulators.charging import SEGMENTS, air_temperature_c
from chargewatch.simulators.city import City, make_city
from chargewatch.simulators.faults import FAULTS
from chargewatch.simulators.layout import SITE_TYPES
from chargewatch.simulators.oddities import ODDITIES
from chargewatch.simulators.scenario import FaultSpec
from chargewatch.simulators.vehicles import real_sessions

OUT = Path(__file__).resolve().parents[1] / "docs" / "img"
TO = datetime(2026, 3, 1, tzinfo=UTC)
QUIET, FAULTY = "#8a94a6", "#c8102e"
BEFORE = {"color": QUIET, "s": 6, "label": "without"}
AFTER = {"color": FAULTY, "s": 6, "label": "with the fault"}


def save(figure: Any, name: str) -> None:
    """Write a figure as a small PNG."""
    figure.savefig(OUT / f"sim-{name}.png", dpi=80, metadata={"Software": None})
    plt.close(figure)


def daily_load() -> None:
    """Mean power of stations of each site type over the hours of a day."""
    city = make_city("quiet-city", seed=3, to=TO, stations=24, days=14)
    stream = city.new_stream()
    hours = np.arange(0, 24, 0.25)
    power = np.zeros((city.layout.connectors.size, hours.size))
    days = 0
    for day in range(city.scenario.days):
        block = stream.block(day)
        edges = np.append(hours, 24.0) * 3600 + day * DAY_S
        edges[-1] -= 1
        rows = np.repeat(np.arange(power.shape[0]), edges.size)
        sample = stream.ledger.sample(block, rows, np.tile(edges, power.shape[0]))
        power += np.diff(sample.input_wh.reshape(power.shape[0], -1), axis=1) * 4
        days += 1
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    site = city.layout.stations.site[city.layout.connectors.station]
    for k, name in enumerate(SITE_TYPES):
        mine = site == k
        if mine.any():
            share = power[mine].sum(axis=0) / days / city.layout.connectors.rated_w[mine].sum()
            axes.step(hours, 100 * share, where="post", label=name)
    axes.set(xlabel="hour of the day (Asia/Shanghai)", ylabel="mean load, % of rated power")
    axes.set(xlim=(0, 24), title="Daily load of stations, by site type")
    axes.legend()
    save(figure, "daily-load")


def session_energies() -> None:
    """Session energies: real DC sessions against simulated ones."""
    city = make_city("dc-hubs", seed=3, to=TO, stations=6, days=10, faults=[])
    stream = city.new_stream()
    energy = []
    for day in range(city.scenario.days):
        block = stream.block(day)
        energy.append(block.true_wh[block.fresh, SEGMENTS - 1])
    simulated = np.concatenate(energy) / 1000
    real = real_sessions()["energy_wh"] / 1000
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    bins = np.linspace(0, 100, 41)
    left.hist(real, bins, density=True, color=QUIET, label=f"real, {real.size}")
    left.hist(
        simulated,
        bins,
        density=True,
        histtype="step",
        color=FAULTY,
        label=f"simulated, {simulated.size}",
    )
    left.set(xlabel="energy of a session, kWh", ylabel="density")
    left.legend()
    q = np.linspace(0.01, 0.99, 99)
    right.plot(np.quantile(real, q), np.quantile(simulated, q), color=FAULTY, lw=2)
    right.plot([0, 90], [0, 90], color=QUIET, lw=1)
    right.set(xlabel="real quantile, kWh", ylabel="simulated quantile, kWh")
    right.set(title="quantiles, 1 to 99 %")
    save(figure, "session-energies")


def error_over_time() -> None:
    """Error of single sessions of a healthy, a drifting and a tampered meter over 30 days."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for fault, colour in ((None, QUIET), ("drift", "#1f6feb"), ("step", FAULTY)):
        faults = [] if fault is None else [FaultSpec(fault=fault, count=1, current="DC")]
        city = make_city("dc-hubs", seed=4, to=TO, stations=1, faults=faults)
        i = city.faults.all[0].target if faults else 0
        t, error = session_errors(city, i)
        axes.scatter(t, 100 * error, s=8, color=colour, label=fault or "healthy")
    mpe = 100 * float(city.layout.connectors.mpe[i])
    axes.axhspan(-mpe, mpe, color="#2da44e", alpha=0.12, label=f"MPE ±{mpe:g} %")
    axes.set(xlabel="day", ylabel="error of a session, %", title="A meter's error over time")
    axes.legend()
    save(figure, "error-over-time")


def session_errors(city: City, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Return days and relative errors of a connector's sessions."""
    stream = city.new_stream()
    days, errors = [], []
    for day in range(city.scenario.days):
        block = stream.block(day)
        mine = block.fresh & (block.sessions.connector == i)
        days.append(block.sessions.start_s[mine] / DAY_S)
        errors.append(block.indicated_wh[mine, -1] / block.true_wh[mine, -1] - 1)
    return np.concatenate(days), np.concatenate(errors)


class Told:
    """What a small city told about one target."""

    def __init__(self, city: City, target: str) -> None:
        self.city = city
        self.begin = city.from_s
        self.readings: list[dict[str, Any]] = []
        self.sessions: list[dict[str, Any]] = []
        self.sent: list[tuple[float, float, int]] = []  # due, told, seq
        for packet in city.packets():
            if packet.topic.split("/")[3] != target.split("-")[0]:
                continue
            body = json.loads(packet.body)
            if packet.kind == "registers":
                due = (city.origin_s + packet.due_s - self.begin) / DAY_S
                self.sent.append((due, self.day(body["sent_at"]), body["seq"]))
                self.readings += [r for r in body["readings"] if r["connector"] == target]
            elif packet.kind == "sessions":
                self.sessions += [s for s in body["sessions"] if s["connector"] == target]

    def day(self, text: str) -> float:
        """Return a time as days since the begin."""
        return (datetime.fromisoformat(text).timestamp() - self.begin) / DAY_S


Panel = Callable[[Axes, Told, Told], str]


def points(axes: Axes, quiet: Any, faulty: Any) -> None:
    """Scatter two sets of (x, y)."""
    axes.scatter(*zip(*quiet, strict=True), **BEFORE) if quiet else None
    axes.scatter(*zip(*faulty, strict=True), **AFTER) if faulty else None


def panel_error(axes: Axes, quiet: Told, faulty: Told) -> str:
    """Error of sessions."""
    i = faulty.city.faults.all[0].target
    for told, style in ((quiet, BEFORE), (faulty, AFTER)):
        t, error = session_errors(told.city, i)
        axes.scatter(t, 100 * error, **style)
    return "error, %"


def panel_register(axes: Axes, quiet: Told, faulty: Told) -> str:
    """Registers as told."""
    for told, colour in ((quiet, QUIET), (faulty, FAULTY)):
        rows = sorted((told.day(r["at"]), r["energy_wh"] / 1000) for r in told.readings)
        axes.plot(*zip(*rows, strict=True), color=colour, lw=1.2)
    return "register, kWh"


def panel_idle(axes: Axes, quiet: Told, faulty: Told) -> str:
    """Energy counted outside sessions."""
    for told, colour in ((quiet, QUIET), (faulty, FAULTY)):
        rows = sorted(told.readings, key=lambda r: told.day(r["at"]))
        total, x, y = 0.0, [], []
        for a, b in pairwise(rows):
            if "session" not in a or a.get("context") == "Transaction.End":
                total += b["energy_wh"] - a["energy_wh"]
            x.append(told.day(b["at"]))
            y.append(total / 1000)
        axes.plot(x, y, color=colour, lw=1.2)
    return "outside sessions, kWh"


def of_sessions(value: Callable[[dict[str, Any]], float]) -> Panel:
    """Return a panel of a value of each session."""

    def panel(axes: Axes, quiet: Told, faulty: Told) -> str:
        sets = [
            [(told.day(s["ended_at"]), value(s)) for s in told.sessions] for told in (quiet, faulty)
        ]
        points(axes, *sets)
        return ""

    return panel


def fee_ratio(session: dict[str, Any]) -> float:
    """Return the energy fee over what the periods come to."""
    due = sum(p["energy_wh"] * float(p["energy_price"]) / 1000 for p in session["periods"])
    return float(session["energy_fee"]) / max(due, 0.01)


def panel_price(axes: Axes, quiet: Told, faulty: Told) -> str:
    """Energy price over the hour of the day."""
    sets = []
    for told in (quiet, faulty):
        rows = []
        for session in told.sessions:
            for p in session["periods"]:
                for text in (p["from"], p["to"]):
                    clock = datetime.fromisoformat(text)
                    side = 0.01 if text == p["from"] else -0.01
                    hour = clock.hour + clock.minute / 60 + side
                    rows.append((hour % 24, float(p["energy_price"])))
        sets.append(rows)
    points(axes, *sets)
    axes.set_xlabel("hour", fontsize=6)
    return "price, CNY/kWh"


def panel_power(axes: Axes, quiet: Told, faulty: Told) -> str:
    """Power as told against the slope of the register."""
    sets = []
    for told in (quiet, faulty):
        rows = sorted(told.readings, key=lambda r: told.day(r["at"]))
        pairs = [
            (b["energy_wh"] - a["energy_wh"], (told.day(b["at"]) - told.day(a["at"])) * 24, b)
            for a, b in pairwise(rows)
            if "session" in a and a.get("session") == b.get("session")
        ]
        sets.append([(e / h / 1000, b["power_w"] / 1000) for e, h, b in pairs if h > 0.05])
    points(axes, *sets)
    axes.set_xlabel("by the register, kW", fontsize=6)
    return "told, kW"


def panel_messages(axes: Axes, quiet: Told, faulty: Told) -> str:
    """Sequence number of register messages over the time when they are published."""
    points(axes, [(d, q) for d, _, q in quiet.sent], [(d, q) for d, _, q in faulty.sent])
    return "seq"


def panel_copies(axes: Axes, quiet: Told, faulty: Told) -> str:
    """How often each register message is published."""
    for told, style in ((quiet, BEFORE), (faulty, AFTER)):
        numbers = [seq for _, _, seq in told.sent]
        last = max(q for _, _, q in quiet.sent)
        axes.scatter(range(1, last + 1), [numbers.count(k) for k in range(1, last + 1)], **style)
    axes.set_xlabel("seq", fontsize=6)
    return "times published"


def panel_delay(axes: Axes, quiet: Told, faulty: Told) -> str:
    """Hours between the time told in a message and its publishing."""
    sets = [[(s, 24 * (d - s)) for d, s, _ in told.sent] for told in (quiet, faulty)]
    points(axes, *sets)
    return "delay, h"


def panel_clock(axes: Axes, quiet: Told, faulty: Told) -> str:
    """Time told in messages less the time of publishing."""
    points(
        axes,
        [(d, (s - d) * DAY_S / 60) for d, s, _ in quiet.sent],
        [(d, (s - d) * DAY_S / 60) for d, s, _ in faulty.sent],
    )
    return "clock, min"


def panel_conflict(axes: Axes, quiet: Told, faulty: Told) -> str:
    """Deviation of readings from the first value told for the same time."""
    sets = []
    for told in (quiet, faulty):
        first: dict[str, float] = {}
        rows = []
        for r in told.readings:
            base = first.setdefault(r["at"], r["energy_wh"])
            rows.append((told.day(r["at"]), r["energy_wh"] - base))
        sets.append(rows)
    points(axes, *sets)
    return "against the first, Wh"


def panel_signed(axes: Axes, quiet: Told, faulty: Told) -> str:
    """Register in the signed record less the register of the session."""
    sets = []
    for told in (quiet, faulty):
        rows = []
        for s in told.sessions:
            record = json.loads(s["signed"]["data"].split("|")[1])
            rows.append((told.day(s["ended_at"]), record["RD"][1]["RV"] - s["stop_wh"] / 1000))
        sets.append(rows)
    points(axes, *sets)
    return "signed - told, kWh"


def panel_registry(axes: Axes, quiet: Told, faulty: Told) -> str:
    """Validity of the verification and whether the connector is registered."""
    city = faulty.city
    name = city.layout.connectors.name[city.faults.all[0].target]
    registry = city.registry()
    known = any(row["connector"] == name for row in registry["connectors"])
    until = [v["valid_until"] for v in registry["verifications"] if v["connector"] == name]
    lines = [
        f"registered: {'yes' if known else 'no'}",
        f"verified until: {until[0] if until else 'never'}",
        f"history until: {TO.date()}",
        f"sessions sold: {len(faulty.sessions)}",
    ]
    axes.text(0.05, 0.9, "\n".join(lines), va="top", transform=axes.transAxes, fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])
    return ""


PANELS: dict[str, Panel] = defaultdict(
    lambda: panel_messages,
    {
        **dict.fromkeys(("gain", "light_load", "drift", "step", "stuck"), panel_error),
        **dict.fromkeys(
            ("rollover", "reset", "declared_reset", "jump", "unit", "silent"), panel_register
        ),
        **dict.fromkeys(("leak", "withheld"), panel_idle),
        **dict.fromkeys(
            ("loss_billing", "billed"),
            of_sessions(lambda s: s["billed_wh"] / max(s["stop_wh"] - s["start_wh"], 1)),
        ),
        "fee": of_sessions(fee_ratio),
        **dict.fromkeys(("tariff", "tou_clock"), panel_price),
        "power": panel_power,
        "soc": of_sessions(lambda s: s.get("battery_capacity_wh", float("nan")) / 1000),
        "clock": panel_clock,
        **dict.fromkeys(("missing", "duplicate"), panel_copies),
        **dict.fromkeys(("late", "reordered"), panel_delay),
        "conflict": panel_conflict,
        **dict.fromkeys(("forged", "replayed"), panel_signed),
        **dict.fromkeys(("unregistered", "expired", "unverified"), panel_registry),
    },
)
LABELS = {
    "loss_billing": "billed / metered",
    "billed": "billed / metered",
    "fee": "fee / (energy x price)",
    "soc": "capacity told, kWh",
}


SITUATIONS: dict[str, str] = {
    "cheat_hours": "hour",
    "cheat_peak": "hour",
    "cheat_weekend": "day of the week",
    "cheat_heat": "air, deg C",
    "cheat_high_load": "load",
    "cheat_low_load": "load",
    "cheat_one_phase": "power, kW",
    "cheat_after_energy": "kWh since the begin",
    "cheat_short_session": "length of session, min",
    "cheat_unless_verified": "min at full load",
}
"""What the error of each situation is drawn against."""


def situations() -> None:
    """What each meter that is wrong only in a situation adds between two readings."""
    options: dict[str, Any] = {
        "seed": 11,
        "to": TO,
        "stations": 8,
        "connectors_per_station": 6,
        "days": 14,
    }
    faults = [FaultSpec(fault=name, count=1) for name in SITUATIONS]
    faulty = make_city("quiet-city", **options, faults=faults)
    quiet = make_city("quiet-city", **options, faults=[])
    connectors = faulty.layout.connectors
    figure, grid = plt.subplots(2, 5, figsize=(15, 5), layout="constrained")
    for fault, axes in zip(faulty.faults.all, grid.ravel(), strict=True):
        i = fault.target
        told = [Told(city, connectors.name[i]) for city in (quiet, faulty)]
        rated = float(connectors.rated_w[i])
        x, y = added_errors(*told, what=SITUATIONS[fault.kind.name], rated_w=rated)
        axes.scatter(x, 100 * y, s=5, color=FAULTY)
        axes.axhline(0, color=QUIET, lw=1)
        mpe = 100 * float(connectors.mpe[i])
        axes.axhspan(-mpe, mpe, color="#2da44e", alpha=0.12)
        axes.set_title(fault.kind.name, fontsize=9, loc="left", fontweight="bold")
        axes.set_xlabel(SITUATIONS[fault.kind.name], fontsize=7)
        axes.set_ylim(-2 * mpe, 4 * mpe)
        axes.tick_params(labelsize=6)
    grid[0, 0].set_ylabel("added between two readings, %", fontsize=7)
    figure.suptitle("Meters that are wrong only in a situation, by 3 MPE; green: the MPE")
    save(figure, "situations")


def added_errors(
    quiet: Told, faulty: Told, *, what: str, rated_w: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a meter adds to each reading's energy, against a quantity."""
    rows = [sorted(told.readings, key=lambda r: told.day(r["at"])) for told in (quiet, faulty)]
    sessions = {session["session"]: session for session in quiet.sessions}
    full_since = 0.0
    x, y = [], []
    for (a, b), (c, d) in zip(pairwise(rows[0]), pairwise(rows[1]), strict=True):
        at = datetime.fromisoformat(a["at"])
        if a["power_w"] < 0.9 * rated_w or a.get("context") == "Transaction.Begin":
            full_since = at.timestamp()
        right = b["energy_wh"] - a["energy_wh"]
        session = sessions.get(a.get("session", ""))
        if session is None or a["session"] != b.get("session") or right < 200:
            continue
        middle = (at.timestamp() + datetime.fromisoformat(b["at"]).timestamp()) / 2
        local = middle + 8 * 3600
        x.append(
            {
                "hour": local % DAY_S / 3600,
                "day of the week": 1 + (local / DAY_S + 3) % 7,
                "air, deg C": float(air_temperature_c(np.float64(local))),
                "load": a["power_w"] / rated_w,
                "power, kW": a["power_w"] / 1000,
                "kWh since the begin": (a["energy_wh"] - session["start_wh"]) / 1000,
                "length of session, min": 1440
                * (quiet.day(session["ended_at"]) - quiet.day(session["started_at"])),
                "min at full load": (at.timestamp() - full_since) / 60,
            }[what]
        )
        y.append((d["energy_wh"] - c["energy_wh"]) / right - 1)
    return np.array(x), np.array(y)


def contact_sheet() -> None:
    """One panel a fault: without it in grey, with it in red."""
    apart = {kind.name for kind in ODDITIES} | set(SITUATIONS)
    names = [name for name in FAULTS if name not in apart]
    columns = 5
    rows = -(-len(names) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(15, 2.3 * rows), layout="constrained")
    for axes in grid.ravel():
        axes.set_visible(False)
    for name, axes in zip(names, grid.ravel(), strict=False):
        axes.set_visible(True)
        kind = FAULTS[name]
        shorter = {"begin_days": 6.0, "length_days": 2.0}
        parameters = {k: v for k, v in shorter.items() if k in kind.parameters}
        spec = FaultSpec(fault=name, count=1, current="DC", parameters=parameters)
        options: dict[str, Any] = {
            "seed": 4,
            "to": TO,
            "stations": 1,
            "connectors_per_station": 4,
            "days": 12,
            "signed_share": 1.0,
        }
        faulty = make_city("dc-hubs", **options, faults=[spec])
        quiet = make_city("dc-hubs", **options, faults=[])
        names_of = faulty.layout.connectors.name
        target = names_of[faulty.faults.all[0].target if kind.on == "connector" else 0]
        label = PANELS[name](axes, Told(quiet, target), Told(faulty, target))
        axes.set_title(name, fontsize=9, loc="left", fontweight="bold")
        axes.set_ylabel(label or LABELS.get(name, ""), fontsize=7)
        axes.tick_params(labelsize=6)
    figure.suptitle("Every fault on one connector or station: without (grey), with (red); x: day")
    save(figure, "faults")


def main() -> None:
    """Draw all figures."""
    OUT.mkdir(parents=True, exist_ok=True)
    for draw in (daily_load, session_energies, error_over_time, contact_sheet, situations):
        draw()
        print(draw.__name__)


if __name__ == "__main__":
    main()
