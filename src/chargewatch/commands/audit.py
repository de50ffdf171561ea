"""`chargewatch audit`: the trail of every change and log-in, signed, exported and verified."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

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
from chargewatch.errors import InputFileError, SettingError
from chargewatch.settings import Settings
from chargewatch.storage import audit as rows
from chargewatch.storage.migrate import open_migrated
from chargewatch.supervision import audit
from chargewatch.supervision.audit import TrailReport
from chargewatch.tlog.note import Note, VerifierKey, read_note, read_verifier_key

key_option = click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="VKEY",
    help="Public key that must have signed, as `audit key` prints it; several times for several.",
)


@click.group("audit")
def command() -> None:
    """Sign, export and verify the trail of every change and log-in."""


def _keys_of(settings: Settings) -> audit.LogKeys:
    if not settings.audit_key:
        raise SettingError(
            "no key signs the audit trail: make one by `chargewatch audit key --origin NAME "
            "--out FILE` and name the file in CHARGEWATCH_AUDIT_KEY_FILE"
        )
    return audit.read_keys(settings.audit_key)


@command.command("key")
@click.option("--origin", help="Name of the log, best like metrology.example/audit.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="New file of the secret keys."
)
@click.pass_context
def key(context: click.Context, origin: str | None, out: Path | None) -> None:
    """Make or print the keys of a log.

    Without options the public ones of the log that is set.

    Tell the public keys to everybody who is to verify, before the log begins: in print, best.
    """
    if (origin is None) != (out is None):
        raise click.UsageError("--origin and --out belong together")
    if origin is None or out is None:
        keys = _keys_of(settings_of(context))
    else:
        keys = audit.new_keys(origin)
        _write_secret(out, keys.secret())
        say(f"secret keys are in {out}; set CHARGEWATCH_AUDIT_KEY_FILE to it; public keys:")
    for one in keys.verifiers():
        click.echo(one.text())


def _write_secret(path: Path, secret: str) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secret + "\n")
    except FileExistsError as exc:
        raise InputFileError(f"{path} exists already: a log's keys are never overwritten") from exc
    except OSError as exc:
        raise InputFileError(f"{path} can't be written: {exc.strerror or exc}") from exc


@command.command("checkpoint")
@click.option(
    "--export",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Bring the log's public files in this folder up to date, too.",
)
@json_option
@click.pass_context
def checkpoint(context: click.Context, folder: Path | None, as_json: bool) -> None:
    """Verify and sign the trail as it stands.

    The checkpoint is kept, and is what later changes are found by. For a daily timer.
    """
    settings = settings_of(context)
    keys = _keys_of(settings)

    async def run() -> tuple[Note, int]:
        async with open_migrated(settings.require_database_url()) as database:
            note = await audit.make_checkpoint(database, keys, now=datetime.now(UTC))
            return note, await audit.export(database, folder) if folder else 0

    note, written = run_async(run())
    if as_json:
        print_json({"checkpoint": note.whole(), "files_written": written})
        return
    if folder:
        say(f"{written} new files in {folder}")
    click.echo(note.whole(), nl=False)


@command.command("verify")
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
@key_option
@json_option
@click.pass_context
def verify(
    context: click.Context, /, path: Path | None, keys: tuple[str, ...], as_json: bool
) -> None:
    """Check that nothing of the trail was changed.

    Without PATH that of the database; offline that of an exported folder, or a proof of one entry.
    """
    known = tuple(read_verifier_key(one) for one in keys) or None
    if path is not None and not path.is_dir():
        _verify_proof(path, known or (), as_json=as_json)
        return
    folder = path
    found = (
        audit.verify_export(folder, keys=known)
        if folder is not None
        else run_async(_verify_database(settings_of(context), known))
    )
    if as_json:
        print_json(asdict(found) | {"holds": found.holds, "signatures_checked": known is not None})
    else:
        for line in _lines(found, known):
            click.echo(line)
    context.exit(0 if found.holds else 1)


def _verify_proof(path: Path, keys: tuple[VerifierKey, ...], *, as_json: bool) -> None:
    content, checkpoint = audit.verify_proof_file(read_text_file(path), keys=keys)
    if as_json:
        print_json({"holds": True, "entry": orjson.loads(content), "log_size": checkpoint.size})
        return
    click.echo(f"{checkpoint.origin} of {checkpoint.size} entries holds: {content}")


async def _verify_database(
    settings: Settings, known: tuple[VerifierKey, ...] | None
) -> TrailReport:
    async with open_migrated(settings.require_database_url()) as database:
        return await audit.verify_database(database, keys=known)


def _lines(found: TrailReport, known: tuple[VerifierKey, ...] | None) -> list[str]:
    if not found.holds:
        return [f"the audit trail does not hold: {found.fault}"]
    lines = [
        f"the audit trail holds: {found.entries} entries, {found.checkpoints} checkpoints, "
        f"root {found.root}"
    ]
    if found.entries > found.signed_size:
        lines.append(f"{found.entries - found.signed_size} entries are newer than what was signed")
    if known is None:
        lines.append("signatures were not checked: give the public keys by --key")
    return lines


@command.command("proof")
@click.argument("entry", type=click.IntRange(0))
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of the proof, NAME.tlog-proof.",
)
@click.pass_context
def proof(context: click.Context, entry: int, out: Path) -> None:
    """Write an entry with its proof.

    That the signed log holds it; `audit verify` reads the file.
    """
    settings = settings_of(context)

    async def run() -> str:
        async with open_migrated(settings.require_database_url()) as database:
            return (await audit.prove_entry(database, entry)).text()

    text = run_async(run())
    write_text_file(out, text)
    say(f"entry {entry} and its proof are in {out}")


@command.command("cosign")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@key_option
@click.option(
    "--witness-key",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Secret keys of the witness, as `audit key --origin WITNESS --out FILE` makes them.",
)
@click.option(
    "--earlier",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Checkpoint that the witness signed last: the log must only have added to it.",
)
def cosign(folder: Path, keys: tuple[str, ...], witness_key: Path, earlier: Path | None) -> None:
    """Verify and sign an exported log as a witness.

    Prints the checkpoint with the witness's signature. Needs no database. Keep what it prints: it
    is EARLIER of the next time.
    """
    note = audit.cosign(
        folder,
        audit.read_keys(read_text_file(witness_key)),
        keys=tuple(read_verifier_key(one) for one in keys),
        earlier=read_note(read_text_file(earlier)) if earlier else None,
        now=datetime.now(UTC),
    )
    click.echo(note.whole(), nl=False)


@command.command("list")
@click.option("--subject", default="", help="Only of this thing, as `user:wang`.")
@click.option("--actor", default="", help="Only of this person.")
@click.option(
    "--limit",
    default=50,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Entries at most.",
)
@json_option
@click.pass_context
def list_entries(
    context: click.Context, /, subject: str, actor: str, limit: int, as_json: bool
) -> None:
    """List the newest entries, the newest first."""
    settings = settings_of(context)

    async def run() -> list[dict[str, object]]:
        async with (
            open_migrated(settings.require_database_url()) as database,
            database.connect() as connection,
        ):
            found = await rows.newest(connection, limit=limit, subject=subject, actor=actor)
        return [{"entry": row["entry"]} | orjson.loads(row["content"]) for row in found]

    entries = run_async(run())
    if as_json:
        print_json(entries)
        return
    for one in entries:
        why = f" ({one['why']})" if "why" in one else ""
        click.echo(
            f"{one['entry']}\t{one['at']}\t{one['actor']}\t{one['action']} {one['subject']}{why}"
        )
    if not entries:
        say("no entry of that kind")
