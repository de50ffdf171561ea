"""`chargewatch evaluate`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from chargewatch.commands.assess import moment
from chargewatch.console import json_option, print_json, run_async, say, settings_of
from chargewatch.evaluation.compare import evaluation, read_json, read_truth
from chargewatch.evaluation.printout import lines, shift_lines
from chargewatch.runs.exports import assessment_rows, signal_rows
from chargewatch.settings import Settings
from chargewatch.storage.database import open_database

FILE = click.Path(dir_okay=False, path_type=Path)


async def _from_database(settings: Settings) -> tuple[list[Any], list[Any]]:
    async with open_database(settings.require_database_url()) as database:
        return await assessment_rows(database), await signal_rows(database)


def _scenario(
    name: str,
    seeds: range,
    to: datetime | None,
    assignments: tuple[str, ...],
    steps: bool,
    truths: tuple[str, ...],
) -> dict[str, Any]:
    # The simulators take a while to import; a truth.json needs none of them.
    from chargewatch.evaluation.oracle import chosen_truths
    from chargewatch.evaluation.seeds import evaluate_scenario
    from chargewatch.simulators.scenario import parse_overrides

    return evaluate_scenario(
        name,
        seeds=seeds,
        to=to,
        overrides=parse_overrides(assignments),
        steps=steps,
        truths=chosen_truths(truths),
        say=say,
    )


def _shifted(
    name: str,
    shifts: tuple[str, ...],
    seeds: range,
    to: datetime | None,
    assignments: tuple[str, ...],
) -> dict[str, Any]:
    from chargewatch.evaluation.prior_shifts import chosen_shifts, prior_shift_figures
    from chargewatch.simulators.scenario import parse_overrides

    return prior_shift_figures(
        name,
        shifts=chosen_shifts(shifts),
        seeds=seeds,
        to=to,
        overrides=parse_overrides(assignments),
        say=say,
    )


@click.command("evaluate")
@click.argument("truth", type=FILE, required=False)
@click.option("--assessments", type=FILE, help="JSON of `assessments export`. [the database]")
@click.option("--signals", type=FILE, help="JSON of `signals export`. [the database]")
@click.option("--scenario", metavar="NAME", help="Simulate in memory instead, without signals.")
@click.option(
    "--seeds", type=click.IntRange(min=1), default=20, show_default=True, help="How many cities."
)
@click.option(
    "--first-seed",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Seed of the first one.",
)
@click.option("--to", callback=moment, metavar="TIME", help="End of the simulated history.")
@click.option(
    "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="A parameter of the scenario."
)
@click.option(
    "--prior-shift",
    "shifts",
    multiple=True,
    metavar="NAME|all",
    help="What a wrong prior costs: cities whose truth lies two sigma from it, beside usual ones.",
)
@click.option(
    "--oracle",
    "truths",
    multiple=True,
    metavar="all|changes|spreads|population|weights",
    help="Also the engine told the truth in place of what it judges: RMSE over the oracle's.",
)
@click.option("--steps", is_flag=True, help="Also the days until a step is flagged (slow).")
@json_option
@click.pass_context
def command(
    context: click.Context,
    truth: Path | None,
    assessments: Path | None,
    signals: Path | None,
    scenario: str | None,
    seeds: int,
    first_seed: int,
    to: datetime | None,
    assignments: tuple[str, ...],
    shifts: tuple[str, ...],
    truths: tuple[str, ...],
    steps: bool,
    as_json: bool,
) -> None:
    """Compare results with a simulated truth. A truth.json, or a scenario over seeds."""
    if (truth is None) == (scenario is None):
        raise click.UsageError("give a truth.json, or --scenario")
    if (assessments is None) != (signals is None):
        raise click.UsageError("give --assessments and --signals together")
    if shifts and (scenario is None or steps):
        raise click.UsageError("--prior-shift needs --scenario, and goes without --steps")
    if truths and (scenario is None or shifts):
        raise click.UsageError("--oracle needs --scenario, and goes without --prior-shift")
    chosen = range(first_seed, first_seed + seeds)
    if scenario is not None and shifts:
        document = _shifted(scenario, shifts, chosen, to, assignments)
    elif scenario is not None:
        document = _scenario(scenario, chosen, to, assignments, steps, truths)
    elif truth is not None:
        known = read_truth(truth)
        if assessments is not None and signals is not None:
            rows, marks = read_json(assessments, list), read_json(signals, list)
        else:
            rows, marks = run_async(_from_database(settings_of(context)))
        document = evaluation(known, rows, marks)
    if as_json:
        print_json(document)
    else:
        for line in shift_lines(document) if shifts else lines(document):
            click.echo(line)
