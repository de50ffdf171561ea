"""`chargewatch credit`: monthly grades of operators, drafted, published, shown and replayed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import orjson

from chargewatch.console import (
    json_option,
    print_json,
    read_text_file,
    run_async,
    say,
    settings_of,
    write_text_file,
)
from chargewatch.errors import InputFileError, NotFoundError
from chargewatch.settings import Settings
from chargewatch.storage.migrate import open_migrated
from chargewatch.storage.office import credit as rows
from chargewatch.supervision.audit import command_line
from chargewatch.supervision.credit import grading
from chargewatch.supervision.credit.arithmetic import PUBLISHED
from chargewatch.supervision.credit.arithmetic import replay as replay_grade
from chargewatch.supervision.credit.grading import Graded
from chargewatch.supervision.credit.job import told_of
from chargewatch.supervision.credit.needs import outlook

_MOST_OPERATORS = 10_000

month_option = click.option("--month", help="As 2026-11.")


@click.group("credit")
def command() -> None:
    """Grade operators by published arithmetic."""


@command.command("grade")
@click.option("--month", help="As 2026-11; the running one unless it is given.")
@click.option("--publish", is_flag=True, help="Publish, which closes the month; it must be over.")
@click.option("--recount", is_flag=True, help="Count a published month again, with --why.")
@click.option("--why", default="", help="The reason of a recount, published with it.")
@json_option
@click.pass_context
def grade(
    context: click.Context,
    /,
    month: str | None,
    publish: bool,
    recount: bool,
    why: str,
    as_json: bool,
) -> None:
    """Compute the grades of a month.

    They are provisional until --publish; then they stay. A recount makes a new revision of those
    that come out differently, and keeps the old one.
    """
    if (publish and recount) or bool(why) != recount:
        raise click.UsageError("--recount and --why belong together, and not with --publish")
    settings = settings_of(context)
    zone, now = settings.zone, datetime.now(UTC)
    wanted = grading.month_now(now, zone) if month is None else grading.month_of(month)

    async def run() -> Graded:
        async with open_migrated(settings.require_database_url()) as database:
            if publish:
                return await grading.publish_month(
                    database, wanted, actor=command_line(), now=now, zone=zone
                )
            if recount:
                return await grading.recount_month(
                    database, wanted, why, actor=command_line(), now=now, zone=zone
                )
            return await grading.draft_month(database, wanted, now=now, zone=zone)

    done = run_async(run())
    if as_json:
        print_json(told_of(done))
        return
    counts = ", ".join(f"{name}: {count}" for name, count in told_of(done)["grades"].items())
    state = "published" if done.closed else "provisional"
    click.echo(f"{done.month:%Y-%m}, {state}: {counts or 'no operator in the registry'}")
    if done.closed:
        say(f"{done.published} new, {done.unchanged} as they were")


@command.command("show")
@click.argument("operator", required=False)
@month_option
@click.option("--draft", is_flag=True, help="What is not published yet, and what would change it.")
@json_option
@click.pass_context
def show(
    context: click.Context, /, operator: str | None, month: str | None, draft: bool, as_json: bool
) -> None:
    """Show a grade line by line.

    Without OPERATOR the grades of all. The newest published one,
    unless --month or --draft asks for another.
    """
    settings = settings_of(context)
    if operator is None:
        if month is not None or draft:
            raise click.UsageError("--month and --draft are of one OPERATOR")
        _show_all(run_async(_all(settings)), as_json=as_json)
        return
    wanted = None if month is None else grading.month_of(month)
    found = run_async(_one(settings, operator, wanted, draft=draft))
    if as_json:
        print_json(found)
        return
    for line in _lines(found):
        click.echo(line)
    if draft:
        for line in _outlook(found):
            click.echo(line)


async def _all(settings: Settings) -> list[Mapping[str, Any]]:
    async with (
        open_migrated(settings.require_database_url()) as database,
        database.connect() as connection,
    ):
        return [
            dict(row) for row in await rows.operators(connection, scope=None, limit=_MOST_OPERATORS)
        ]


def _show_all(found: list[Mapping[str, Any]], *, as_json: bool) -> None:
    names = ("operator_id", "name", "month", "grade", "score", "worst")
    if as_json:
        kept = [{name: row[name] for name in (*names, "draft_grade")} for row in found]
        print_json([row | {"score": row["score"] and str(row["score"])} for row in kept])
        return
    for row in found:
        month = "" if row["month"] is None else f"{row['month']:%Y-%m}"
        told = (row["operator_id"], row["name"], month, row["grade"] or "-", row["score"] or "-")
        click.echo("\t".join(str(one) for one in told))
    if not found:
        say("no operator in the registry: `chargewatch registry import` first")


async def _one(
    settings: Settings,
    operator: str,
    month: date | None,
    *,
    draft: bool,
    revision: int | None = None,
) -> dict[str, Any]:
    async with (
        open_migrated(settings.require_database_url()) as database,
        database.connect() as connection,
    ):
        if draft:
            row = await rows.draft(connection, operator, month=month)
        else:
            row = await rows.published(connection, operator, month=month, revision=revision)
    if row is None:
        when = f" of {month:%Y-%m}" if month else ""
        raise NotFoundError(
            f"operator {operator!r} has no {'draft' if draft else 'published grade'}{when}: "
            "`chargewatch credit grade` makes drafts, with --publish grades of a month that is over"
        )
    told: dict[str, Any] = dict(row["arithmetic"])
    if draft:
        return told
    published = {"revision": row["revision"], "made_at": row["made_at"].isoformat()}
    return told | {PUBLISHED: published | {"why": row["why"]}}


def _lines(told: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{told['operator_id']} {told['month']}: {told['grade'] or 'not graded'}, "
        f"score {told['score'] or '-'}, rules {told['rules']['version']}",
        "item\tbad of all\trate\t95 % interval\tpoints\tweight in force\trows",
    ]
    for line in told["lines"]:
        if line["points"] is None:
            lines.append(f"{line['item']}\tnot known\t\t\t\t0 of {line['weight']}\t{line['rows']}")
            continue
        interval = "" if line["low"] is None else f"{line['low']} .. {line['high']}"
        per = "" if line["per"] == 1 else f" per {line['per']}"
        lines.append(
            f"{line['item']}\t{line['bad']} of {line['all']}\t{line['rate']}{per}\t{interval}\t"
            f"{line['points']}\t{line['weight_in_force']} of {line['weight']}\t{line['rows']}"
        )
    return lines


def _outlook(told: Mapping[str, Any]) -> list[str]:
    found = outlook(told)
    if found.next_grade is None:
        return []
    lines = [f"grade {found.next_grade} needs {found.missing:g} more"]
    for need in found.needs:
        alone = "" if need.count is None else f"; enough alone: {need.count:g} {need.better}"
        lines.append(f"{need.item}\tup to +{need.gain:g}{alone}")
    return lines


@command.command("export")
@click.argument("operator")
@click.option("--month", help="As 2026-11; the newest published one unless it is given.")
@click.option("--revision", type=click.IntRange(1), help="The newest one unless it is given.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File; OPERATOR-MONTH.credit.json unless it is given.",
)
@click.pass_context
def export(
    context: click.Context,
    /,
    operator: str,
    month: str | None,
    revision: int | None,
    out: Path | None,
) -> None:
    """Write a published grade with its arithmetic.

    `credit replay` computes it again.
    """
    wanted = None if month is None else grading.month_of(month)
    told = run_async(_one(settings_of(context), operator, wanted, draft=False, revision=revision))
    path = out or Path(f"{quote(operator, safe='')}-{told['month']}.credit.json")
    write_text_file(path, orjson.dumps(told, option=orjson.OPT_INDENT_2).decode() + "\n")
    say(f"grade {told['grade'] or '-'} of {operator} in {told['month']} is in {path}")


@command.command("replay")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
@click.pass_context
def replay(context: click.Context, /, file: Path, as_json: bool) -> None:
    """Compute a published grade again from its own facts.

    Offline. Fails when any figure of FILE is not what the arithmetic gives, to the last digit.
    """
    try:
        told = orjson.loads(read_text_file(file))
    except orjson.JSONDecodeError as exc:
        raise InputFileError(f"{file} is no JSON: {exc}") from exc
    found = replay_grade(told)
    if as_json:
        print_json(
            {
                "holds": not found.faults,
                "operator_id": found.operator_id,
                "month": found.month,
                "grade": found.grade,
                "score": found.score,
                "rules": found.rule_version,
                "rules_known": found.rules_known,
                "faults": list(found.faults),
            }
        )
    else:
        for fault in found.faults:
            click.echo(f"does not hold: {fault}")
        if not found.faults:
            click.echo(
                f"holds: {found.operator_id} {found.month}, grade {found.grade or '-'}, "
                f"score {found.score or '-'}"
            )
        if not found.rules_known:
            say(f"its rule set {found.rule_version!r} is none that this chargewatch ships")
    context.exit(1 if found.faults else 0)
