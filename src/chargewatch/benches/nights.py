"""`chargewatch bench nights`: a chain of nightly runs against one full run, on late data."""

from __future__ import annotations

import asyncio
import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import orjson

from chargewatch.benches.assess import server_of
from chargewatch.benches.scratch import scratch_database
from chargewatch.domain.mpe import rule_set
from chargewatch.domain.times import DAY_S
from chargewatch.ingest.contents.assembly import TimeLimits
from chargewatch.ingest.message import Arrival, read_message
from chargewatch.ingest.writer import BatchWriter
from chargewatch.runs.assess import WINDOW_DAYS, run_assessment
from chargewatch.runs.exports import assessment_rows
from chargewatch.settings import Settings
from chargewatch.simulators.city import City, make_city
from chargewatch.simulators.scenario import load_scenario
from chargewatch.storage.database import Database, open_database
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.registry import import_registry
from chargewatch.wire.registry_file import read_registry_file

MESSAGES_AT_ONCE = 500
HOUR_S = 3600.0
WIRE_LIMITS = TimeLimits(600, 3650)
SCENARIO = "mixed-faults"
STATIONS = 8

Message = tuple[str, bytes]
Change = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Night:
    """One night of the chain."""

    as_of: datetime
    messages: Sequence[Message]  # that have come since the night before
    registry: dict[str, Any] | None  # imported before the run; None: as it was


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What a chain of nights says against a full run."""

    modes: Sequence[str]  # of the nights
    connectors: int
    verdicts: Sequence[str]  # connectors with another verdict
    largest_u: float  # largest difference of an error, in standard uncertainties
    rms: float  # root mean square of the differences of errors
    largest_u_ratio: float  # largest relative difference of an uncertainty
    night_s: float  # mean
    full_s: float
    by_night: Sequence[Mapping[str, Any]]  # how far each night was from the full run at the end

    def as_json(self) -> dict[str, Any]:
        """Return the difference for `--json`."""
        return {
            "nights": len(self.modes),
            "full_nights": sum(mode == "full" for mode in self.modes),
            "connectors": self.connectors,
            "verdicts_changed": list(self.verdicts),
            "largest_difference_u": self.largest_u,
            "rms_difference": self.rms,
            "largest_uncertainty_ratio": self.largest_u_ratio,
            "seconds_a_night": round(self.night_s, 2),
            "seconds_full": round(self.full_s, 2),
            "by_night": list(self.by_night),
        }


def _delay_s(topic: str, sent_s: float, *, places: Mapping[str, int], begin_s: float) -> float:
    """Return how long a message of the city is on its way.

    One station in three reads its connectors an hour late, one two hours; one feeder meter in
    three is six hours late, and the sessions of half of the stations. The gateway of the second
    station is cut off for four days and sends all of them afterwards; the third station's sessions
    of one day come three days late, the fourth one's readings of its meter.
    """
    station, kind = topic.split("/")[3:5]
    place, day = places[station], (sent_s - begin_s) / DAY_S
    if place == 1 and 3.2 <= day < 7.2:
        return (7.2 - day) * DAY_S
    if (place, kind) in ((2, "sessions"), (3, "reference")) and 4.0 <= day < 5.0:
        return 3.0 * DAY_S
    if kind == "registers":
        return (place % 3) * HOUR_S
    late = (kind == "reference" and place % 3 == 1) or (kind == "sessions" and place % 2 == 0)
    return 6.0 * HOUR_S if late else 0.0


def _arrivals(city: City) -> list[tuple[float, Message]]:
    """Return the city's messages with the time at which they come, in that order."""
    places = {row["station_id"]: k for k, row in enumerate(city.registry()["stations"])}
    found = []
    for topic, payload in city.messages():
        content = payload if isinstance(payload, bytes) else orjson.dumps(payload)
        sent_s = datetime.fromisoformat(orjson.loads(content)["sent_at"]).timestamp()
        delay_s = _delay_s(topic, sent_s, places=places, begin_s=city.from_s)
        found.append((sent_s + delay_s, (topic, content)))
    return sorted(found, key=lambda arrival: arrival[0])


def _namesake(city: City, *, day: float) -> tuple[float, Message]:
    """Return a stranger's message that claims the name of a registered connector."""
    at_s = city.from_s + day * DAY_S
    at = datetime.fromtimestamp(at_s, UTC)
    readings = [
        {
            "connector": city.registry()["connectors"][0]["connector"],
            "at": (at - timedelta(minutes=30 - 15 * k)).isoformat(),
            "energy_wh": 1_000_000 + 40_000 * k,
        }
        for k in range(3)
    ]
    content = orjson.dumps({"seq": 1, "sent_at": at.isoformat(), "readings": readings})
    return at_s, ("cw/v1/STRANGER/ELSEWHERE/registers", content)


def _row(document: dict[str, Any], connector: str) -> dict[str, Any]:
    found: dict[str, Any] = next(r for r in document["connectors"] if r["connector"] == connector)
    return found


def _changes(document: dict[str, Any]) -> tuple[dict[str, Any], Mapping[int, Change]]:
    """Return the registry to begin with, and what is put right in it before some nights.

    A DC pile is entered only later, so that it is a claim at first; another one's cable flag and a
    third one's rated power are wrong.
    """
    first, rows = copy.deepcopy(document), document["connectors"]
    dc = [row["connector"] for row in rows if row["current"] == "DC"]
    claim, flagged, power = dc[0], dc[-1], rows[len(rows) // 2]["connector"]
    was = _row(document, flagged)["cable_loss_compensated"]
    _row(first, flagged)["cable_loss_compensated"] = not was
    _row(first, power)["rated_power_w"] = 0.8 * _row(document, power)["rated_power_w"]
    for table in ("connectors", "verifications"):
        first[table] = [row for row in first[table] if row["connector"] != claim]

    def with_claim(now: dict[str, Any]) -> None:
        now["connectors"].append(_row(document, claim))
        now["verifications"] = document["verifications"]

    def with_flag(now: dict[str, Any]) -> None:
        _row(now, flagged)["cable_loss_compensated"] = was

    def with_power(now: dict[str, Any]) -> None:
        _row(now, power)["rated_power_w"] = _row(document, power)["rated_power_w"]

    return first, {5: with_claim, 6: with_flag, 7: with_power}


def nights_of(city: City, *, nights: int) -> list[Night]:
    """Return the nights of a city's history: at two o'clock UTC, the last one at its end."""
    begin = datetime.fromtimestamp(city.from_s, UTC)
    registry, changes = _changes(city.registry())
    arrivals = sorted([*_arrivals(city), _namesake(city, day=4.5)], key=lambda item: item[0])
    found, place = [], 0
    days = round((city.to_s - city.from_s) / DAY_S)
    for night in range(nights):
        day = days - nights + night + 1
        as_of = begin + timedelta(days=day, hours=-6 if day == days else 2)
        if night in changes:
            registry = copy.deepcopy(registry)
            changes[night](registry)
        last = place
        while last < len(arrivals) and arrivals[last][0] <= as_of.timestamp():
            last += 1
        found.append(
            Night(
                as_of=as_of,
                messages=[message for _, message in arrivals[place:last]],
                registry=registry if night == 0 or night in changes else None,
            )
        )
        place = last
    return found


async def _take(url: str, messages: Sequence[Message]) -> None:
    async with BatchWriter(url, limits=WIRE_LIMITS, quarantine_a_day=100) as writer:
        for begin in range(0, len(messages), MESSAGES_AT_ONCE):
            now_us = round(time.time() * 1e6)
            part = messages[begin : begin + MESSAGES_AT_ONCE]
            await writer.write(
                [
                    read_message(Arrival(topic, content, None, now_us + k))
                    for k, (topic, content) in enumerate(part)
                ]
            )


async def _register(database: Database, document: Mapping[str, Any]) -> None:
    with TemporaryDirectory(prefix="chargewatch-nights-") as folder:
        path = Path(folder) / "registry.json"
        path.write_bytes(orjson.dumps(document))
        file = read_registry_file(path)
    await import_registry(database, file, actor=Actor(name="bench"), rules=rule_set("CN-2022"))


def _night_apart(
    nightly: Sequence[Mapping[str, Any]], full: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return how far a night's errors are from the full run's, in uncertainties of that night."""
    # A stranger's connector may have the name of a registered one.
    last = {(row["station_id"], row["connector"]): row for row in full}
    away, other = [], 0
    for row in nightly:
        end = last[row["station_id"], row["connector"]]
        other += row["verdict"] != end["verdict"]
        if row["relative_error"] is not None and end["relative_error"] is not None:
            gap = abs(row["relative_error"] - end["relative_error"])
            away.append(gap / row["standard_uncertainty"])
    away.sort()
    return {
        "estimates": len(away),
        "median_u": away[len(away) // 2] if away else None,
        "p90_u": away[len(away) * 9 // 10] if away else None,
        "largest_u": away[-1] if away else None,
        "other_verdicts": other,
    }


def _difference(
    every: Sequence[Sequence[Mapping[str, Any]]],
    full: Sequence[Mapping[str, Any]],
    *,
    modes: Sequence[str],
    night_s: float,
    full_s: float,
) -> Difference:
    away, ratios, squares, verdicts = [0.0], [0.0], [0.0], []
    for one, other in zip(every[-1], full, strict=True):
        if one["verdict"] != other["verdict"]:
            verdicts.append(f"{one['connector']}: {one['verdict']}, full {other['verdict']}")
        if one["relative_error"] is None or other["relative_error"] is None:
            continue
        u = other["standard_uncertainty"]
        gap = one["relative_error"] - other["relative_error"]
        away.append(abs(gap) / u)
        squares.append(gap**2)
        ratios.append(abs(one["standard_uncertainty"] / u - 1.0))
    return Difference(
        modes=modes,
        connectors=len(full),
        verdicts=verdicts,
        largest_u=max(away),
        rms=math.sqrt(sum(squares) / len(squares)),
        largest_u_ratio=max(ratios),
        night_s=night_s,
        full_s=full_s,
        by_night=[
            {"night": number, "mode": mode, **_night_apart(rows, full)}
            for number, (mode, rows) in enumerate(zip(modes, every, strict=True), start=1)
        ],
    )


async def compare_nights(
    url: str,
    settings: Settings,
    nights: Sequence[Night],
    *,
    days: float,
    say: Callable[[str], None],
) -> Difference:
    """Return how a chain of nights, each with what has come by then, differs from a full run."""
    modes, seconds, every = [], [], []
    async with open_database(url) as database:
        for number, night in enumerate(nights, start=1):
            if night.registry is not None:
                await _register(database, night.registry)
            await _take(url, night.messages)
            begun = time.monotonic()
            outcome = await run_assessment(
                database, settings, as_of=night.as_of, days=days, say=_only_reasons(say)
            )
            seconds.append(time.monotonic() - begun)
            modes.append(outcome.mode)
            every.append(await assessment_rows(database))
            say(f"night {number} of {len(nights)}: {outcome.mode}, {seconds[-1]:.1f} s")
        begun = time.monotonic()
        await run_assessment(database, settings, as_of=nights[-1].as_of, days=days, full=True)
        full_s = time.monotonic() - begun
        full = await assessment_rows(database)
    return _difference(every, full, modes=modes, night_s=sum(seconds) / len(seconds), full_s=full_s)


def _only_reasons(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return what passes on why a night reads more than its days."""

    def told(line: str) -> None:
        if line.startswith(("adding the window again", "computing in full")):
            say(line)

    return told


async def _measured(url: str, settings: Settings, *, nights: int, seed: int) -> dict[str, Any]:
    scenario = load_scenario(SCENARIO, stations=STATIONS, days=nights + 1)
    # Ends in the past: a run can't be as of a time that is still to come.
    to = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    city = make_city(scenario, seed=seed, to=to)
    async with scratch_database(url, "nights") as own:
        found = await compare_nights(
            own,
            settings,
            nights_of(city, nights=nights),
            days=WINDOW_DAYS,
            say=lambda line: click.echo(line, err=True),
        )
    return {"bench": "nights", "scenario": SCENARIO, "seed": seed, **found.as_json()}


@click.command("nights")
@click.option(
    "--nights", type=click.IntRange(9, 60), default=30, show_default=True, help="Nights in a row."
)
@click.option("--seed", default=1, show_default=True, help="Of the city.")
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON document on stdout.")
@click.pass_context
def command(context: click.Context, nights: int, seed: int, as_json: bool) -> None:
    """Compare a month of nights with a full run. On late data, outages and registry changes."""
    settings: Settings = context.find_root().obj
    with server_of(settings) as url:
        found = asyncio.run(_measured(url, settings, nights=nights, seed=seed))
    if as_json:
        click.echo(orjson.dumps(found).decode())
        return
    click.echo(
        f"{found['nights']} nights, {found['full_nights']} of them full; {found['connectors']} "
        f"connectors: {len(found['verdicts_changed'])} other verdicts, errors differ by at most "
        f"{found['largest_difference_u']:.4f} u (rms {found['rms_difference']:.2e}), uncertainties "
        f"by {100 * found['largest_uncertainty_ratio']:.2f} %"
    )
    for line in found["verdicts_changed"]:
        click.echo(f"  {line}")
