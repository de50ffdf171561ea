"""`chargewatch simulate`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from chargewatch.commands.common import json_option, print_json, say
from chargewatch.errors import InputFileError
from chargewatch.simulators.city import City, make_city
from chargewatch.simulators.city_files import write_city
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


def _city(
    scenario: str, *, seed: int, to: str | None, assignments: tuple[str, ...]
) -> City | RealSessions:
    if scenario == REAL_SESSIONS:
        if to is not None or assignments:
            raise InputFileError(f"{REAL_SESSIONS} are as measured: neither --to nor --set applies")
        return RealSessions()
    return make_city(scenario, seed=seed, to=parse_time(to), **parse_overrides(assignments))


@click.command("simulate")
@click.argument("scenario")
@click.option("--out", type=click.Path(path_type=Path), help="Write files into this folder.")
@click.option("--seed", type=int, default=1, show_default=True, help="Repeats a city exactly.")
@click.option("--to", help="End of the history (default: the last midnight in Shanghai).")
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="A parameter.")
@click.option("--gzip", "compress", is_flag=True, help="Write messages.jsonl.gz.")
@json_option
def command(
    scenario: str,
    out: Path | None,
    seed: int,
    to: str | None,
    assignments: tuple[str, ...],
    compress: bool,
    as_json: bool,
) -> None:
    """Write or publish a simulated city with a known truth."""
    city = _city(scenario, seed=seed, to=to, assignments=assignments)
    if out is None:
        raise InputFileError("give --out FOLDER")
    written = write_city(city, out, compress=compress)
    if as_json:
        print_json({**asdict(written), "truth": city.truth()["messages"]})
    else:
        say(f"{written.messages:,} messages in {written.folder} ({written.seconds:.1f} s)")
