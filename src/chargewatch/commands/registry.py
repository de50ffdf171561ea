"""`chargewatch registry`: import and export; the office's commands are in registry_office."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import orjson

from chargewatch.commands.registry_office import due, edit, show, show_share
from chargewatch.console import (
    json_option,
    print_json,
    run_async,
    say,
    settings_of,
    write_stdout,
)
from chargewatch.domain.mpe import rule_set
from chargewatch.errors import InputFileError
from chargewatch.settings import Settings
from chargewatch.storage.migrate import open_migrated
from chargewatch.supervision.audit import command_line
from chargewatch.supervision.instruments.exports import Form, export_file, export_ledger
from chargewatch.supervision.registry import ImportReport, import_registry
from chargewatch.supervision.registry_preview import Preview, preview_registry
from chargewatch.wire.registry_file import RegistryFile, read_registry_file


@click.group("registry")
def command() -> None:
    """Import, export, look up and edit the registry."""


async def _import_file(settings: Settings, path: Path, why: str) -> ImportReport:
    """Import one registry file with the settings' database and rule set."""
    file = _read(settings, path)
    async with open_migrated(settings.require_database_url()) as database:
        return await import_registry(
            database, file, actor=command_line(), rules=rule_set(settings.mpe_rules), why=why
        )


async def _preview_file(settings: Settings, path: Path) -> Preview:
    """Look what one registry file would change."""
    file = _read(settings, path)
    async with open_migrated(settings.require_database_url()) as database:
        return await preview_registry(database, file, rules=rule_set(settings.mpe_rules))


def _read(settings: Settings, path: Path) -> RegistryFile:
    """Read the file, saying how many rows of each list come from where."""
    return read_registry_file(
        path, zone=settings.time_zone, on_source=lambda source: say(f"read {source}")
    )


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show what would change; take nothing.")
@click.option("--why", default="", help="The reason, for history and audit trail.")
@json_option
@click.pass_context
def import_command(
    context: click.Context, file: Path, dry_run: bool, why: str, as_json: bool
) -> None:
    """Take a registry file, all of it or nothing. JSON, XLSX, or a folder or zip of CSV files."""
    settings = settings_of(context)
    report: ImportReport | Preview
    if dry_run:
        report = run_async(_preview_file(settings, file))
    else:
        report = run_async(_import_file(settings, file, why))
    if as_json:
        print_json(report)
        return
    if isinstance(report, Preview):
        for line in _lines_of(report):
            click.echo(line)
    for name, count in report.rows.items():
        new, changed = report.new.get(name, 0), report.changed.get(name, 0)
        if count or changed:
            # A line of the ledger may change a connector that is no row of the file.
            alone = max(0, count - new - changed)
            say(f"{name}: {count} read, {new} new, {changed} changed, {alone} left alone")
    for told in report.told:
        say(f"note: {told}")
    for notice in report.notices:
        say(f"note: {notice}")
    if dry_run:
        say("nothing was taken: import without --dry-run")


def _lines_of(preview: Preview) -> Iterator[str]:
    """Yield a line for every new row, and for every field that would change."""
    for name, identifiers in preview.added.items():
        for identifier in identifiers:
            yield f"new: {name} {identifier}"
    for change in preview.changes:
        for column, values in change.fields.items():
            before, after = (orjson.dumps(values[side]).decode() for side in ("before", "after"))
            yield f"changed: {change.list} {change.identifier}, {column}: {before} -> {after}"


@command.command("export")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--form", type=click.Choice(["json", "csv", "xlsx"]),
    help="Default by the name: .xlsx, .csv of a ledger, .zip of CSV files, else JSON.",
)  # fmt: skip
@click.option("--ledger", is_flag=True, help="The national ledger, CSV or XLSX.")
@click.option("--operator", help="Of one operator only.")
@click.pass_context
def export_command(
    context: click.Context, file: Path, form: Form | None, ledger: bool, operator: str | None
) -> None:
    """Write the registry: JSON, CSV in a zip, XLSX (- is stdout)."""
    by_name: dict[str, Form] = {".xlsx": "xlsx", ".csv": "csv", ".zip": "csv"}
    wanted = form or by_name.get(file.suffix.lower(), "csv" if ledger else "json")
    if ledger and wanted == "json":
        raise click.UsageError("--ledger is csv or xlsx")
    write = export_ledger if ledger else export_file

    async def read() -> bytes:
        async with open_migrated(settings_of(context).require_database_url()) as database:
            return await write(database, wanted, scope=operator)

    content = run_async(read())
    if str(file) == "-":
        write_stdout(content)
        return
    try:
        file.write_bytes(content)
    except OSError as exc:
        raise InputFileError(f"{file}: can't be written: {exc.strerror}") from exc
    say(f"registry written to {file}")


for office_command in (show, edit, due, show_share):
    command.add_command(office_command)
