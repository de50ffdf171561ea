"""`chargewatch demo`."""

from __future__ import annotations

import asyncio
import signal
import sys

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from chargewatch.console import json_option, print_json, run_async, settings_of
from chargewatch.local.demo import SUPERVISOR, Demo, DemoFinding, Outcome, run_demo
from chargewatch.local.office import INSPECTORS, WITNESS, operator_user
from chargewatch.simulators.scenario import parse_overrides

SHOWN = 15


def _estimate(finding: DemoFinding) -> str:
    if finding.relative_error is None or finding.standard_uncertainty is None:
        return "-"
    return f"{100 * finding.relative_error:+.2f} ± {200 * finding.standard_uncertainty:.2f} %"


def _signals(finding: DemoFinding) -> str:
    if not finding.true_signals and not finding.found_signals:
        return ""
    injected = ", ".join(finding.true_signals) or "none"
    return f"{injected} -> {', '.join(finding.found_signals) or 'none'}"


def _table(outcome: Outcome) -> Table:
    rows = [
        finding
        for finding in outcome.findings
        if abs(finding.true_error) > finding.mpe or finding.tier == "red" or finding.true_signals
    ]
    rows.sort(key=lambda finding: -abs(finding.true_error) / finding.mpe)
    table = Table(title="What was injected, and what was found", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("connector", no_wrap=True)
    for column in ("true error", "estimate", "MPE"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("tier", no_wrap=True)
    table.add_column("signals injected -> found")
    for finding in rows[:SHOWN]:
        table.add_row(
            finding.connector,
            f"{100 * finding.true_error:+.2f} %",
            _estimate(finding),
            f"{100 * finding.mpe:.1f} %",
            finding.tier,
            _signals(finding),
        )
    if len(rows) > SHOWN:
        table.caption = f"and {len(rows) - SHOWN} more"
    return table


def _show(demo: Demo, outcome: Outcome, *, console: Console, once: bool) -> None:
    console.print(_table(outcome))
    console.print(
        f"stored {outcome.stored:,} of {outcome.published:,} readings and sessions; "
        f"{outcome.true_faults} connectors exceed their MPE, {outcome.flagged} are red, "
        f"{outcome.false_flags} of them wrongly; {outcome.seconds:.0f} s"
    )
    if outcome.lost:
        console.print(
            f"LOST: {outcome.lost:,} of {outcome.published:,} readings and sessions were "
            "published and acknowledged and are not in the tables. This must not happen: the end "
            "of ingest's log is above; please report both."
        )
    for connector in outcome.missed:
        console.print(f"missed: {connector} exceeds twice its MPE and is not red")
    if not once:
        console.print()
        console.print(f"  pages      {demo.address}")
        console.print(f"  user       {SUPERVISOR}")
        console.print(f"  password   {demo.password}")
        names = ", ".join((WITNESS, *INSPECTORS, "auditor", *map(operator_user, demo.operators)))
        console.print(f"  also       {names}, with the same password")
        console.print()
        console.print("Telemetry goes on live. Ctrl-C ends the demo and leaves nothing behind.")


@click.command("demo")
@click.option("--once", is_flag=True, help="Check the result against the truth, print it, exit.")
@click.option("--seed", type=int, default=1, show_default=True, help="Which city.")
@click.option("--scenario", default="demo", show_default=True, help="As for `simulate`.")
@click.option(
    "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="A parameter of the scenario."
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    once: bool,
    seed: int,
    scenario: str,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run the whole platform on this machine. Nothing needs to be installed beforehand."""
    # Without a terminal nothing tells the width: a log takes long lines.
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)
    # A service manager's SIGTERM must end the engines too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with console.status("") as status:

            def show(demo: Demo, outcome: Outcome) -> None:
                status.stop()
                _show(demo, outcome, console=console, once=once)

            outcome = run_async(
                run_demo(
                    settings_of(context),
                    seed=seed,
                    scenario=scenario,
                    overrides=parse_overrides(assignments),
                    once=once,
                    say=console.print,
                    progress=status.update,
                    show=show,
                )
            )
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("the demo has ended")
        return
    if as_json:
        print_json(outcome.as_json())
    if not outcome.passed:
        sys.exit(1)
