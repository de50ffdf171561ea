"""`chargewatch evaluate`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from chargewatch.commands.assess import moment
from chargewatch.console import json_option, print_json, run_async, say, settings_of
from chargewatch.evaluation.compare import evaluation, read_json, read_truth
from chargewatch.runs.exports import assessment_rows, signal_rows
from chargewatch.settings import Settings
from chargewatch.storage.database import open_database

FILE = click.Path(dir_okay=False, path_type=Path)

WORDS: Mapping[str, str] = {
    "rmse": "RMSE of relative_error",
    "rmse_over_bound": "RMSE over its Cramer-Rao bound",
    "coverage": "coverage of the 95 % interval",
    "false_flags": "false flags among red",
    "recall_1_5_mpe": "recall at |eps| >= 1.5 MPE",
    "recall_2_mpe": "recall at |eps| >= 2 MPE",
    "days_to_flag_median": "days to flag a step of 2 MPE, median",
    "false_drift_alarms_per_1000_month": "false drift alarms per 1,000 piles and month",
    "brier_score": "Brier score",
    "ideal_brier_score": "Brier score if the probabilities were right",
}


async def _from_database(settings: Settings) -> tuple[list[Any], list[Any]]:
    async with open_database(settings.require_database_url()) as database:
        return await assessment_rows(database), await signal_rows(database)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        shown = _text(value.get("value"))
        low, high = value.get("low"), value.get("high")
        if low is not None and high is not None and not math.isnan(low):
            shown += f" ({low:.4g} to {high:.4g})"
        return shown + (f" of {value['of']}" if "of" in value else "")
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"


def _print(document: Mapping[str, Any]) -> None:
    targets, errors = document["targets"], document["errors"]
    for name, words in WORDS.items():
        if name in errors:
            target = f"   [target {targets[name]}]" if name in targets else ""
            click.echo(f"{words}: {_text(errors[name])}{target}")
    for row in errors.get("reliability", ()):
        click.echo(
            f"  p {row['from']:.2f} to {row['to']:.2f}: said {row['mean_p']:.3f}, "
            f"came {row['observed']:.3f} ({row['connectors']} connectors)"
        )
    for code, row in document["situations"].items():
        click.echo(
            f"wrong only by {code}: {row['found']} of {row['offenders']} at >= 1.5 MPE over all "
            f"energy are red, {row['wrongly_conforming']} beyond the MPE called conforming "
            f"({row['connectors']} connectors, {row['red']} red)"
            + (
                f"; situation told of {row['named']}, right of {row['rightly_named']}"
                if "named" in row
                else ""
            )
        )
    for code, row in document.get("signals", {}).get("by_code", {}).items():
        names = ", ".join([*row["false"][:3], *row["missed"][:3]])
        click.echo(
            f"signal {code}: precision {_text(row['precision'])}, recall {_text(row['recall'])}"
            + (f"; false or missed: {names}" if names else "")
        )


def _scenario(
    name: str,
    seeds: range,
    to: datetime | None,
    assignments: tuple[str, ...],
    steps: bool,
) -> dict[str, Any]:
    # The simulators take a while to import; a truth.json needs none of them.
    from chargewatch.evaluation.seeds import evaluate_scenario
    from chargewatch.simulators.scenario import parse_overrides

    return evaluate_scenario(
        name, seeds=seeds, to=to, overrides=parse_overrides(assignments), steps=steps, say=say
    )


def _print_shifts(document: Mapping[str, Any]) -> None:
    click.echo(f"{document['scenario']}, {document['seeds']} seeds from {document['first_seed']}")
    click.echo(
        f"{'shift':<20}{'RMSE %':>8}{'over u':>8}{'cover %':>9}{'bias AC %':>11}{'bias DC %':>11}"
        f"{'false red':>11}{'found':>9}  prior and truth"
    )
    for row in document["prior_shifts"]:
        told = "" if row["prior"] is None else f"{row['prior']}: {row['truth']}"
        flags, found = f"{row['false_red']}/{row['red']}", f"{row['found']}/{row['offenders']}"
        click.echo(
            f"{row['shift']:<20}{100 * row['rmse']:>8.3f}{row['rmse_over_u']:>8.2f}"
            f"{100 * row['coverage']:>9.1f}{100 * row['bias_ac']:>11.3f}"
            f"{100 * row['bias_dc']:>11.3f}{flags:>11}{found:>9}  {told}".rstrip()
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
    chosen = range(first_seed, first_seed + seeds)
    if scenario is not None and shifts:
        document = _shifted(scenario, shifts, chosen, to, assignments)
    elif scenario is not None:
        document = _scenario(scenario, chosen, to, assignments, steps)
    elif truth is not None:
        known = read_truth(truth)
        if assessments is not None and signals is not None:
            rows, marks = read_json(assessments, list), read_json(signals, list)
        else:
            rows, marks = run_async(_from_database(settings_of(context)))
        document = evaluation(known, rows, marks)
    if as_json:
        print_json(document)
    elif shifts:
        _print_shifts(document)
    else:
        _print(document)
