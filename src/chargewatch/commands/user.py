"""`chargewatch user`: who may log in, and operators' tokens for the HTTP door."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import click

from chargewatch.console import json_option, print_json, run_async, say, settings_of
from chargewatch.settings import Settings
from chargewatch.storage import users
from chargewatch.storage.database import open_database
from chargewatch.storage.migrate import open_migrated
from chargewatch.supervision import accounts, second_factor, tokens
from chargewatch.supervision.audit import command_line
from chargewatch.supervision.permissions import Role


def _read_password(prompt: bool) -> tuple[str, bool]:
    """Return a password and whether it was generated: from a prompt, from stdin, or fresh."""
    if prompt:
        if sys.stdin.isatty():
            return click.prompt("Password", hide_input=True, confirmation_prompt=True), False
        return sys.stdin.readline().rstrip("\r\n"), False
    return accounts.generate_password(), True


async def _add(
    settings: Settings, name: str, *, role: Role, operator_id: str | None, password: str
) -> None:
    async with open_migrated(settings.require_database_url()) as database:
        await accounts.add_user(
            database,
            name,
            role=role,
            operator_id=operator_id,
            password=password,
            actor=command_line(),
        )


async def _list(settings: Settings) -> list[dict[str, Any]]:
    async with (
        open_migrated(settings.require_database_url()) as database,
        database.connect() as connection,
    ):
        return [dict(row) for row in await users.all_users(connection)]


@click.group("user")
def command() -> None:
    """Look after users of the pages and tokens of operators."""


@command.command("add")
@click.argument("name")
@click.option(
    "--role", type=click.Choice([role.value for role in Role]), required=True, help="Its rights."
)
@click.option("--operator", "operator_id", help="With --role operator: whose piles it sees.")
@click.option(
    "--password-stdin",
    is_flag=True,
    help="Ask for the password, or read one line of stdin. Without it one is generated and shown.",
)
@json_option
@click.pass_context
def add(
    context: click.Context,
    /,
    name: str,
    role: str,
    operator_id: str | None,
    password_stdin: bool,
    as_json: bool,
) -> None:
    """Make a user; a generated password is printed once."""
    password, generated = _read_password(password_stdin)
    settings = settings_of(context)
    run_async(_add(settings, name, role=Role(role), operator_id=operator_id, password=password))
    if as_json:
        made = {"username": name, "role": role, "operator_id": operator_id}
        print_json({**made, "password": password} if generated else made)
        return
    say(f"user {name} ({role}) may log in")
    if generated:
        say("its password, shown only now:")
        click.echo(password)


@command.command("list")
@json_option
@click.pass_context
def list_users(context: click.Context, as_json: bool) -> None:
    """List all users."""
    rows = run_async(_list(settings_of(context)))
    if as_json:
        print_json(rows)
        return
    for row in rows:
        state = "disabled" if row["disabled"] else "enabled"
        operator_id = row["operator_id"] or "-"
        click.echo(f"{row['username']}\t{row['role']}\t{operator_id}\t{state}")
    if not rows:
        say("no users yet: `chargewatch user add NAME --role administrator`")


@command.command("disable")
@click.argument("name")
@click.pass_context
def disable(context: click.Context, name: str) -> None:
    """Shut a user out at once."""

    async def run(settings: Settings) -> None:
        async with open_database(settings.require_database_url()) as database:
            await accounts.disable_user(database, name, actor=command_line())

    run_async(run(settings_of(context)))
    say(f"user {name} is disabled and logged out")


@command.command("password")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Ask, or read one line of stdin.")
@click.pass_context
def password(context: click.Context, name: str, password_stdin: bool) -> None:
    """Give a user a new password and enable it; ends its sessions."""
    new_password, generated = _read_password(password_stdin)

    async def run(settings: Settings) -> None:
        async with open_database(settings.require_database_url()) as database:
            await accounts.set_password(database, name, password=new_password, actor=command_line())

    run_async(run(settings_of(context)))
    say(f"user {name} has a new password")
    if generated:
        click.echo(new_password)


@command.command("token")
@click.argument("operator_id")
@click.option("--label", default="", help="What the token is for (default: today's date).")
@click.option("--revoke", is_flag=True, help="Revoke all tokens of the operator instead.")
@json_option
@click.pass_context
def token(
    context: click.Context, /, operator_id: str, label: str, revoke: bool, as_json: bool
) -> None:
    """Issue an operator's token for telemetry over HTTP. It is printed once."""
    now = datetime.now(UTC)

    async def run(settings: Settings) -> str | int:
        async with open_migrated(settings.require_database_url()) as database:
            if revoke:
                return await tokens.revoke_operator_tokens(
                    database, operator_id, now=now, actor=command_line()
                )
            return await tokens.issue_operator_token(
                database,
                operator_id,
                label=label or now.date().isoformat(),
                actor=command_line(),
            )

    result = run_async(run(settings_of(context)))
    if as_json:
        key = "revoked" if revoke else "token"
        print_json({"operator_id": operator_id, key: result})
    elif revoke:
        say(f"{result} token(s) of {operator_id} revoked")
    else:
        say(f"token of {operator_id}, shown only now:")
        click.echo(result)


@command.command("end-second-factor")
@click.argument("name")
@click.pass_context
def end_second_factor(context: click.Context, name: str) -> None:
    """End a lost second factor."""

    async def run(settings: Settings) -> None:
        async with open_migrated(settings.require_database_url()) as database:
            await second_factor.end(database, name, actor=command_line(), now=datetime.now(UTC))

    run_async(run(settings_of(context)))
    say(f"user {name} logs in by password alone until a second factor is set up again")
