"""`chargewatch assessments export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from chargewatch.console import (
    run_async,
    say,
    settings_of,
    write_stdout,
)
from chargewatch.errors import InputFileError
from chargewatch.runs.exports import (
    ASSESSMENT_SCHEMA,
    FORMATS,
    WIDE_ASSESSMENT_SCHEMA,
    assessment_rows,
)
from chargewatch.settings import Settings
from chargewatch.storage.database import open_database


def export_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --format and --out."""
    command = click.option(
        "--format",
        "form",
        type=click.Choice(sorted(FORMATS)),
        default="json",
        show_default=True,
        help="Form of the rows.",
    )(command)
    path: click.Path = click.Path(dir_okay=False, path_type=Path)
    return click.option("--out", type=path, help="File. [stdout]")(command)


def write_export(rows: list[dict[str, Any]], schema: Any, *, form: str, out: Path | None) -> None:
    """Write rows in a format to a file, or to stdout.

    Raises: InputFileError when the file can't be written.
    """
    content = FORMATS[form](rows, schema)
    if out is None:
        write_stdout(content)
        return
    try:
        out.write_bytes(content)
    except OSError as exc:
        raise InputFileError(f"{out} can't be written: {exc.strerror}") from exc
    say(f"{len(rows)} rows in {out}")


async def _rows(settings: Settings, run_id: int | None, schema: Any) -> list[dict[str, Any]]:
    async with open_database(settings.require_database_url()) as database:
        return await assessment_rows(database, run_id=run_id, schema=schema)


@click.group("assessments")
def command() -> None:
    """What the newest risk run says of every connector."""


@command.command("export")
@export_options
@click.option("--run", "run_id", type=int, help="A finished run's number. [the newest]")
@click.option("--wide", is_flag=True, help="Add money and the error at light load.")
@click.pass_context
def export(
    context: click.Context, form: str, out: Path | None, run_id: int | None, wide: bool
) -> None:
    """Write the newest assessment of every connector."""
    schema = WIDE_ASSESSMENT_SCHEMA if wide else ASSESSMENT_SCHEMA
    rows = run_async(_rows(settings_of(context), run_id, schema))
    write_export(rows, schema, form=form, out=out)
