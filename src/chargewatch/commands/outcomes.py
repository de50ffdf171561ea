"""`chargewatch outcomes`: what later verifications made of flags."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import UTC, datetime

import click

from chargewatch.console import json_option, print_json, run_async, say, settings_of
from chargewatch.settings import Settings
from chargewatch.storage.migrate import open_migrated
from chargewatch.supervision.outcomes.count import Figures, count_outcomes, read_figures
from chargewatch.supervision.outcomes.figures import CountedShare, Delay


@click.group("outcomes")
def command() -> None:
    """Count what later verifications made of flags."""


async def _count(settings: Settings) -> int:
    async with (
        open_migrated(settings.require_database_url()) as database,
        database.begin() as connection,
    ):
        return await count_outcomes(connection, zone=settings.zone)


async def _show(settings: Settings, operator_id: str | None) -> Figures:
    async with (
        open_migrated(settings.require_database_url()) as database,
        database.connect() as connection,
    ):
        return await read_figures(
            connection,
            scope=operator_id,
            zone=settings.zone,
            now=datetime.now(UTC),
        )


@command.command("count")
@json_option
@click.pass_context
def count(context: click.Context, /, as_json: bool) -> None:
    """Make all outcomes anew from runs and verifications.

    Risk runs and verifications that are entered do it by themselves; again it is the same.
    """
    flags = run_async(_count(settings_of(context)))
    if as_json:
        print_json({"flags": flags})
        return
    say(f"counted {flags} flags; `chargewatch outcomes show` has their figures")


@command.command("show")
@click.option("--operator", "operator_id", help="Of one operator's piles only.")
@json_option
@click.pass_context
def show(context: click.Context, /, operator_id: str | None, as_json: bool) -> None:
    """Print precision, recall and delays, with intervals of 95 %."""
    figures = run_async(_show(settings_of(context), operator_id))
    if as_json:
        print_json(asdict(figures))
        return
    told = ", ".join(f"{name} {number}" for name, number in figures.flags.items())
    click.echo(f"flags: {told}")
    for tier, share in figures.precision.items():
        click.echo(f"precision, {tier}: {_share(share)}")
    click.echo(f"recall, all verifications: {_share(figures.recall)}")
    click.echo(f"recall, uniform part of draws: {_share(figures.uniform_recall)}")
    click.echo(f"days from change to flag: {_delay(figures.detection)}")
    click.echo(f"days from flag to verification: {_delay(figures.verification)}")


def _share(share: CountedShare) -> str:
    if not share.of:
        return "nothing to count yet"
    return (
        f"{share.hits} of {share.of} = {share.value:.1%} "
        f"(Wilson {share.low:.1%} to {share.high:.1%}, "
        f"exact {share.exact_low:.1%} to {share.exact_high:.1%})"
    )


def _delay(delay: Delay) -> str:
    if not delay.over + delay.waiting:
        return "nothing to count yet"
    median = "not reached" if math.isnan(delay.median_days) else f"{delay.median_days:.1f}"
    return f"median {median}; {delay.over} over, {delay.waiting} not yet"
