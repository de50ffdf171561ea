"""`chargewatch verification`: enter, show, withdraw verifications; certificates in and out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from chargewatch.api.models_verifications import VerificationAsked
from chargewatch.console import (
    json_option,
    print_json,
    read_file,
    run_async,
    say,
    settings_of,
    write_stdout,
    write_text_file,
)
from chargewatch.domain.mpe import rule_set
from chargewatch.errors import InputFileError, NotFoundError
from chargewatch.settings import Settings
from chargewatch.storage.migrate import open_migrated
from chargewatch.storage.office import verifications as rows
from chargewatch.supervision.audit import command_line
from chargewatch.supervision.files import keep_file
from chargewatch.supervision.verifications import asked, entering
from chargewatch.supervision.verifications.certificate import certificate_of
from chargewatch.supervision.verifications.certificate_read import read_certificate
from chargewatch.supervision.verifications.entering import Place
from chargewatch.supervision.verifications.judge import VERIFICATION_KINDS, NewVerification

in_file = click.Path(exists=True, dir_okay=False, path_type=Path)
out_file = click.Path(dir_okay=False, path_type=Path)


@click.group("verification")
def command() -> None:
    """Look after verifications that are made on site."""


def _read_json(path: Path, content: bytes) -> tuple[Place, NewVerification, str | None]:
    try:
        told = VerificationAsked.model_validate_json(content)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputFileError(f"{path}: {where}: {first['msg']}") from exc
    place, new = asked.verification_of(told.model_dump())
    return place, new, told.rule_set


def _read_dcc(content: bytes, connector: str | None, kind: str) -> tuple[Place, NewVerification]:
    read = read_certificate(content)
    if connector is None:
        connector = next(iter(read.identifications), None)
    if connector is None:
        raise InputFileError("the certificate names no item: tell --connector")
    return Place(connector=connector), NewVerification(
        verified_on=read.verified_on,
        kind=kind,
        points=read.points,
        certificate=read.identifier,
        institute=read.laboratory,
    )


def _is_xml(content: bytes) -> bool:
    return content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


async def _enter(
    settings: Settings,
    place: Place,
    new: NewVerification,
    *,
    rules: str | None,
    file: tuple[str, bytes] | None,
) -> dict[str, Any]:
    actor, zone = command_line(), settings.zone
    async with (
        open_migrated(settings.require_database_url()) as database,
        database.begin() as connection,
    ):
        if file is not None:
            file_id = await keep_file(connection, actor, name=file[0], content=file[1])
            new = replace(new, file_id=file_id)
        number = await entering.enter_verification(
            connection,
            actor,
            place,
            new,
            rules=rule_set(rules or settings.mpe_rules),
            now=datetime.now(UTC),
            zone=zone,
        )
    return await _read(settings, number)


async def _read(settings: Settings, number: int) -> dict[str, Any]:
    async with (
        open_migrated(settings.require_database_url()) as database,
        database.connect() as connection,
    ):
        found = await rows.verification(connection, number, scope=None)
        if found is None:
            raise NotFoundError(f"no verification {number}: `verification list` has them")
        points = await rows.points(connection, number)
    return dict(found) | {"points": [dict(point) for point in points]}


async def _withdraw(settings: Settings, number: int, why: str) -> None:
    async with (
        open_migrated(settings.require_database_url()) as database,
        database.begin() as connection,
    ):
        await entering.withdraw_verification(
            connection,
            command_line(),
            number,
            why=why,
            now=datetime.now(UTC),
            zone=settings.zone,
        )


async def _list(settings: Settings, limit: int) -> list[dict[str, Any]]:
    async with (
        open_migrated(settings.require_database_url()) as database,
        database.connect() as connection,
    ):
        found = await rows.entered(connection, scope=None, before=None, limit=limit)
        return [dict(row) for row in found]


def _tell(found: dict[str, Any]) -> None:
    state = " (withdrawn)" if found["withdrawn_at"] else ""
    click.echo(
        f"verification {found['verification_id']} of {found['connector']}, "
        f"{found['verified_on']}: {found['result']}{state}"
    )
    for point in found["points"]:
        limit = "no limit" if point["limit"] is None else f"limit {point['limit']:.2%}"
        if point["verdict"] == "no_limit" and point["limit"] is not None:
            limit += ", not confirmed"
        click.echo(
            f"  {point['load']}: {point['relative_error']:+.3%} ± "
            f"{point['expanded_uncertainty']:.3%} (k = {point['coverage_factor']:.2f}), {limit}: "
            f"{point['verdict']}"
        )


@command.command("enter")
@click.argument("file", type=in_file)
@click.option("--connector", help="Of a certificate (DCC): which connector it is of.")
@click.option(
    "--kind",
    type=click.Choice(VERIFICATION_KINDS),
    default="subsequent",
    show_default=True,
    help="Of a certificate (DCC): why the pile was verified.",
)
@json_option
@click.pass_context
def enter(
    context: click.Context, /, file: Path, connector: str | None, kind: str, as_json: bool
) -> None:
    """Enter a verification from FILE.

    JSON as the API takes it, or a Digital Calibration Certificate (XML), which is kept as the
    verification's file. It is an anchor of the next run.
    """
    settings = settings_of(context)
    content = read_file(file)
    rules, kept = None, None
    if _is_xml(content):
        place, new = _read_dcc(content, connector, kind)
        kept = (file.name, content)
    else:
        place, new, rules = _read_json(file, content)
    found = run_async(_enter(settings, place, new, rules=rules, file=kept))
    if as_json:
        print_json(found)
        return
    _tell(found)


@command.command("show")
@click.argument("number", type=click.IntRange(min=1))
@json_option
@click.pass_context
def show(context: click.Context, /, number: int, as_json: bool) -> None:
    """Print a verification with its loads."""
    found = run_async(_read(settings_of(context), number))
    if as_json:
        print_json(found)
        return
    _tell(found)


@command.command("list")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    help="At most so many.",
)
@json_option
@click.pass_context
def list_(context: click.Context, /, limit: int, as_json: bool) -> None:
    """Print the newest verifications of the office."""
    found = run_async(_list(settings_of(context), limit))
    if as_json:
        print_json({"verifications": found})
        return
    for row in found:
        state = ", withdrawn" if row["withdrawn_at"] else ""
        click.echo(
            f"{row['verification_id']}  {row['verified_on']}  {row['connector']}  "
            f"{row['result']}{state}"
        )


@command.command("dcc")
@click.argument("number", type=click.IntRange(min=1))
@click.option("--out", type=out_file, help="Write it here instead of stdout.")
@click.pass_context
def dcc(context: click.Context, /, number: int, out: Path | None) -> None:
    """Print a verification as a calibration certificate (DCC)."""
    content = certificate_of(run_async(_read(settings_of(context), number)))
    if out is None:
        write_stdout(content)
        return
    write_text_file(out, content.decode())
    say(f"wrote {out}")


@command.command("withdraw")
@click.argument("number", type=click.IntRange(min=1))
@click.option("--why", required=True, help="The reason, which is kept with it.")
@click.pass_context
def withdraw(context: click.Context, /, number: int, why: str) -> None:
    """Withdraw a verification that is wrong.

    It stays to be read, and is no anchor any more.
    """
    run_async(_withdraw(settings_of(context), number, why))
    say(f"withdrew verification {number}; enter the right one now")
