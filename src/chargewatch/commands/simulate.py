"""`chargewatch simulate`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from chargewatch.commands.replay import receipts_option, show_progress
from chargewatch.console import json_option, print_json, run_async, say, settings_of
from chargewatch.errors import InputFileError
from chargewatch.mqtt.address import broker_address
from chargewatch.settings import Settings
from chargewatch.simulators.city import City, make_city
from chargewatch.simulators.city_files import write_city
from chargewatch.simulators.gateways import publish_by_gateways, timed
from chargewatch.simulators.measure import measure_city
from chargewatch.simulators.publisher import Published
from chargewatch.simulators.real_sessions import NAME as REAL_SESSIONS
from chargewatch.simulators.real_sessions import RealSessions
from chargewatch.simulators.scenario import parse_overrides


def parse_time(text: str | None) -> datetime | None:
    """Return an aware time of an RFC 3339 text."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InputFileError(f"--to {text}: write 2026-03-01T00:00:00+08:00") from exc
    if found.tzinfo is None:
        raise InputFileError(f"--to {text}: needs an offset, for example +08:00")
    return found


def parse_speed(text: str) -> float | None:
    """Return a factor of real time of 'real', 'full' or a number; None is full speed."""
    if text in {"full", "real"}:
        return None if text == "full" else 1.0
    try:
        speed = float(text)
    except ValueError as exc:
        raise InputFileError(f"--speed {text}: use full, real or a factor like 60") from exc
    if speed <= 0:
        raise InputFileError(f"--speed {text}: a factor is greater than 0")
    return speed


def _city(
    scenario: str, *, seed: int, to: str | None, assignments: tuple[str, ...]
) -> City | RealSessions:
    if scenario == REAL_SESSIONS:
        if to is not None or assignments:
            raise InputFileError(f"{REAL_SESSIONS} are as measured: neither --to nor --set applies")
        return RealSessions()
    return make_city(scenario, seed=seed, to=parse_time(to), **parse_overrides(assignments))


def _timed_messages(city: City | RealSessions, *, live: bool) -> Iterator[tuple[float, str, bytes]]:
    """Yield (epoch seconds, topic, payload) of the history, or of what comes after it."""
    if isinstance(city, RealSessions):
        if live:
            raise InputFileError(f"{REAL_SESSIONS} have no live part: leave out --live")
        yield from ((0.0, topic, body) for topic, body in city.messages())
        return
    if live:
        yield from city.live()
        return
    for packet in city.packets():
        yield city.origin_s + packet.due_s, packet.topic, packet.body


async def _publish(
    settings: Settings,
    city: City | RealSessions,
    *,
    speed: float | None,
    gateways: str,
    live: bool,
    receipts: bool,
) -> Published:
    progress = Published()
    shown = asyncio.create_task(show_progress(progress))
    own = gateways == "own"
    try:
        return await publish_by_gateways(
            timed(_timed_messages(city, live=live), speed=speed),
            broker_address(settings),
            own=own,
            connections=4 if own else int(gateways),
            progress=progress,
            receipts=receipts,
        )
    finally:
        shown.cancel()


def _check_gateways(_: click.Context, __: click.Parameter, value: str) -> str:
    if value == "own" or (value.isdigit() and int(value) > 0):
        return value
    raise click.BadParameter("use own, or a number of shared connections")


@click.command("simulate")
@click.argument("scenario")
@click.option("--out", type=click.Path(path_type=Path), help="Write files into this folder.")
@click.option("--seed", type=int, default=1, show_default=True, help="Repeats a city exactly.")
@click.option("--to", help="End of the history (default: the last midnight in Shanghai).")
@click.option(
    "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="A parameter of the scenario."
)
@click.option("--gzip", "compress", is_flag=True, help="Write messages.jsonl.gz.")
@click.option("--measure", is_flag=True, help="Make and encode everything, keep nothing.")
@click.option(
    "--speed",
    default="full",
    show_default=True,
    help="How fast: full, real, or a factor of real time.",
)
@click.option(
    "--gateways",
    default="4",
    show_default=True,
    callback=_check_gateways,
    help="Shared connections, or 'own': one connection and last will a station.",
)
@click.option("--live", is_flag=True, help="Publish what comes after the history, without end.")
@receipts_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    scenario: str,
    out: Path | None,
    seed: int,
    to: str | None,
    assignments: tuple[str, ...],
    compress: bool,
    measure: bool,
    speed: str,
    gateways: str,
    live: bool,
    receipts: bool,
    as_json: bool,
) -> None:
    """Make a simulated city with a known truth. Into --out FOLDER, or straight to the broker."""
    city = _city(scenario, seed=seed, to=to, assignments=assignments)
    if measure:
        if isinstance(city, RealSessions):
            raise InputFileError("--measure needs a simulated scenario")
        print_json(measure_city(city))
        return
    if out is not None:
        written = write_city(city, out, compress=compress)
        if as_json:
            print_json({**asdict(written), "truth": city.truth()["messages"]})
        else:
            say(f"{written.messages:,} messages in {written.folder} ({written.seconds:.1f} s)")
        return
    factor = parse_speed("real" if live and speed == "full" else speed)
    done = run_async(
        _publish(
            settings_of(context),
            city,
            speed=factor,
            gateways=gateways,
            live=live,
            receipts=receipts,
        )
    )
    if as_json:
        print_json({"published": done.messages, **asdict(done)})
    else:
        say(f"{done.messages:,} messages acknowledged in {done.seconds:.1f} s")
