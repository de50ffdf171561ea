"""`chargewatch assess`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from chargewatch import logs
from chargewatch.console import (
    FiniteRange,
    json_option,
    print_json,
    run_async,
    say,
    settings_of,
)
from chargewatch.runs.assess import WINDOW_DAYS, RunOutcome, run_assessment
from chargewatch.settings import Settings
from chargewatch.storage.database import open_database

log = logging.getLogger(__name__)

FIRST_YEAR, LAST_YEAR = 1970, 2200


def moment(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> datetime | None:
    """Return a time, RFC 3339 with an offset; BadParameter says what is wrong with it."""
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError as exc:
        raise click.BadParameter(
            f"{value!r} is not a time such as 2026-03-01T00:00:00+08:00"
        ) from exc
    if at.tzinfo is None:
        raise click.BadParameter(f"{value!r} has no UTC offset; write ...T00:00:00+08:00")
    if not FIRST_YEAR < at.year < LAST_YEAR:
        raise click.BadParameter(f"{value!r} is not within the years 1971 to 2199")
    return at


async def _assess(
    settings: Settings,
    *,
    as_of: datetime | None,
    full: bool,
    days: float,
    archive: Path | None,
    evidence_of: tuple[str, ...],
    quiet: bool,
) -> RunOutcome:
    async with open_database(settings.require_database_url()) as database:
        return await run_assessment(
            database,
            settings,
            as_of=as_of,
            full=full,
            days=days,
            archive=archive,
            evidence_of=evidence_of,
            say=(lambda _line: None) if quiet else say,
        )


def _number(value: float | None) -> str:
    return "not known" if value is None or value != value else f"{value:.1f}"


def _doubts(rules: Mapping[str, Any]) -> list[str]:
    """Return what stands against the rule set that a run judged by."""
    name = f"rule set {rules['name']} ({rules['regulation']})"
    doubts = []
    if not rules["in_force"]:
        until = rules["valid_until"] or "now"
        doubts.append(
            f"{name} was not in force at the time of this run: it holds from "
            f"{rules['valid_from']} to {until}; CHARGEWATCH_MPE_RULES chooses another"
        )
    if not rules["checked_against_source"]:
        doubts.append(f"{name} was not checked against the text of its regulation")
    return doubts


def _print(outcome: RunOutcome, currency: str) -> None:
    click.echo(
        f"Run {outcome.run_id} ({outcome.mode}) as of {outcome.as_of.isoformat()}: "
        f"{outcome.connectors} connectors in {sum(outcome.seconds.values()):.1f} s"
    )
    click.echo("  " + ", ".join(f"{count} {tier}" for tier, count in outcome.tiers.items()))
    click.echo(
        f"  expected false flags {_number(outcome.expected_false_flags)}, "
        f"expected missed offenders {_number(outcome.expected_missed)}"
    )
    for line in _doubts(outcome.summary["rules"]):
        click.echo(f"  {line}")
    found = ", ".join(f"{count} {code}" for code, count in outcome.signals.items())
    click.echo(f"  signals: {found or 'none'}")
    for meter in outcome.summary["suspect_meters"]:
        click.echo(
            f"  reference meter {meter['meter']} looks wrong: {meter['relative_error']:+.4f}"
        )
    click.echo(f"  result {outcome.result_digest[:16]}; money in {currency}")


@click.command("assess")
@click.option(
    "--as-of",
    metavar="TIME",
    callback=moment,
    help="Only data up to this time count, RFC 3339 with an offset. [now]",
)
@click.option("--full", is_flag=True, help="Recompute the window from the rollups.")
@click.option(
    "--days",
    type=FiniteRange(min=1, max=1200),
    default=WINDOW_DAYS,
    show_default=True,
    help="Length of the window.",
)
@click.option(
    "--archive",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of `chargewatch db export`: read rollups and sessions there where it is current.",
)
@click.option(
    "--evidence",
    "evidence_of",
    multiple=True,
    metavar="CONNECTOR",
    help="Take an evidence file of this connector, too, whatever is found; several times.",
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    as_of: datetime | None,
    full: bool,
    days: float,
    archive: Path | None,
    evidence_of: tuple[str, ...],
    as_json: bool,
) -> None:
    """Do one risk run. Errors, uncertainties, verdicts and signals of every connector."""
    settings = settings_of(context)
    logs.configure(settings)
    outcome = run_async(
        _assess(
            settings,
            as_of=as_of,
            full=full,
            days=days,
            archive=archive,
            evidence_of=evidence_of,
            quiet=as_json,
        )
    )
    log.info(
        "risk_run_finished run_id=%d mode=%s as_of=%s connectors=%d seconds=%.1f digest=%s",
        outcome.run_id,
        outcome.mode,
        outcome.as_of,
        outcome.connectors,
        sum(outcome.seconds.values()),
        outcome.result_digest,
    )
    if as_json:
        print_json(asdict(outcome))
    else:
        _print(outcome, settings.currency)
