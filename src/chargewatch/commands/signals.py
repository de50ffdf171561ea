"""`chargewatch signals export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from chargewatch.commands.assessments import export_options, write_export
from chargewatch.console import run_async, settings_of
from chargewatch.runs.exports import SIGNAL_SCHEMA, signal_rows
from chargewatch.settings import Settings
from chargewatch.storage.database import open_database


async def _rows(settings: Settings, closed_too: bool) -> list[dict[str, Any]]:
    async with open_database(settings.require_database_url()) as database:
        return await signal_rows(database, closed_too=closed_too)


@click.group("signals")
def command() -> None:
    """Integrity signals: what single records prove."""


@command.command("export")
@export_options
@click.option("--all", "closed_too", is_flag=True, help="Closed signals too.")
@click.pass_context
def export(context: click.Context, form: str, out: Path | None, closed_too: bool) -> None:
    """Write the open integrity signals."""
    rows = run_async(_rows(settings_of(context), closed_too))
    write_export(rows, SIGNAL_SCHEMA, form=form, out=out)
