"""`chargewatch evidence`: everything that decided a flag, as a file, and the flag from it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from chargewatch.console import json_option, print_json, run_async, say, settings_of
from chargewatch.errors import InputFileError
from chargewatch.runs.evidence.account import COMPUTED, given_of
from chargewatch.runs.evidence.grounds import read
from chargewatch.runs.evidence.replay import Recomputed
from chargewatch.runs.evidence.replay import replay as replay_file
from chargewatch.settings import Settings
from chargewatch.storage.migrate import open_migrated
from chargewatch.supervision.evidence.form import MOST_EVIDENCE_BYTES, EvidenceFile, unpacked
from chargewatch.supervision.evidence.kept import (
    GivenFile,
    entered,
    given_out,
    one_pile,
    verified,
)
from chargewatch.tlog.merkle import LogError
from chargewatch.tlog.note import read_verifier_key

in_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("evidence")
def command() -> None:
    """Give out, compute again and verify what decided a flag."""


@command.command("export")
@click.argument("connector")
@click.option("--run", "run_id", type=click.IntRange(1), help="Of this run. [the newest file]")
@click.option("--operator", help="Its operator, where several have a connector of this name.")
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file, NAME.evidence.zip.",
)
@json_option
@click.pass_context
def export(
    context: click.Context,
    /,
    connector: str,
    run_id: int | None,
    operator: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Write the evidence file of a flag.

    As it was taken at the end of the run that raised the flag, with the proof that the audit trail
    holds its digest when a checkpoint has been signed since.
    """
    found = run_async(_exported(settings_of(context), connector, operator, run_id))
    try:
        out.write_bytes(found.content)
    except OSError as exc:
        raise InputFileError(f"{out} can't be written: {exc.strerror or exc}") from exc
    if as_json:
        print_json(
            {
                "run_id": found.run_id,
                "tier": found.tier,
                "made_at": found.made_at,
                "bytes": len(found.content),
                "is_proven": found.is_proven,
            }
        )
        return
    say(f"evidence of {connector} ({found.tier}, run {found.run_id}) is in {out}")
    if not found.is_proven:
        say("it carries no proof yet: write it again after `chargewatch audit checkpoint`")


async def _exported(
    settings: Settings, connector: str, operator: str | None, run_id: int | None
) -> GivenFile:
    async with open_migrated(settings.require_database_url()) as database:
        pile = await one_pile(database, connector, operator_id=operator)
        return await given_out(database, pile, run_id=run_id)


def _file(path: Path) -> EvidenceFile:
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_EVIDENCE_BYTES + 1)
    except OSError as exc:
        raise InputFileError(f"{path} can't be read: {exc.strerror or exc}") from exc
    return unpacked(content)


@dataclass(frozen=True, kw_only=True)
class _Proof:
    """What a file's proof says when nobody gave a key."""

    entry: dict[str, object] | None
    fault: str

    def line(self) -> str:
        """Return it in words."""
        if self.fault:
            return f"proof: does not hold: {self.fault}"
        if self.entry is None:
            return "proof: none in the file"
        return (
            f"proof: entered at {self.entry['at']}; its signature is checked by "
            "`chargewatch evidence verify FILE --key VKEY`"
        )


def _proof(file: EvidenceFile) -> _Proof:
    try:
        return _Proof(entry=entered(file), fault="")
    except LogError as exc:
        return _Proof(entry=None, fault=str(exc))


@command.command("replay")
@click.argument("path", metavar="FILE", type=in_file)
@json_option
@click.pass_context
def replay(context: click.Context, /, path: Path, as_json: bool) -> None:
    """Compute a flag's verdict again from its evidence file.

    Offline, by the functions that the run computed it with. Says what is given, what is computed,
    and whether it is equal to the last bit; exit status 1 when it is not.
    """
    file = _file(path)
    again, proof, grounds = replay_file(file), _proof(file), read(file)
    holds = again.holds and not proof.fault
    if as_json:
        print_json(
            {
                "holds": holds,
                "equal": not again.differs,
                "pile": file.pile,
                "run": {name: value for name, value in file.run.items() if name != "configuration"},
                "digest": file.digest,
                "told": again.told,
                "computed": again.computed,
                "differs": again.differs,
                "largest_difference": again.largest,
                "other_programs": again.other,
                "given": given_of(grounds),
                "recomputed": COMPUTED,
                "proof": {"entry": proof.entry, "fault": proof.fault or None},
            }
        )
    else:
        for line in (*_heading(file), *_account(given_of(grounds)), *_outcome(again)):
            click.echo(line)
        click.echo(proof.line())
    context.exit(0 if holds else 1)


def _heading(file: EvidenceFile) -> list[str]:
    pile, run = file.pile, file.run
    return [
        f"{pile['connector']} at {pile['station_id']} of {pile['operator_id']}, run "
        f"{run['run_id']} as of {run['as_of']}",
        f"digest {file.digest}; result of the run {run['result_digest']}",
    ]


def _account(given: dict[str, str]) -> list[str]:
    lines = ["given, as the run had it:"]
    lines += [f"  {name.replace('_', ' ')}: {text}" for name, text in given.items()]
    return [*lines, f"computed again: {', '.join(COMPUTED)}"]


def _outcome(again: Recomputed) -> list[str]:
    columns = ("verdict", "tier", "relative_error", "standard_uncertainty", "p_nonconforming")
    lines = [f"  {'':22}{'told':>24}{'computed':>26}"]
    lines += [f"  {n:22}{_cell(again.told[n]):>24}{_cell(again.computed[n]):>26}" for n in columns]
    if not again.differs:
        return [*lines, "equal: to the last bit, in all columns"]
    lines.append(
        f"NOT equal: {', '.join(again.differs)}; largest relative difference {again.largest:.3g}"
    )
    if not again.same_programs:
        told = ", ".join(f"{name} {one} (here {two})" for name, (one, two) in again.other.items())
        lines.append(f"the file was made with other programs: {told}")
        if again.holds:
            lines.append("verdict, tier and counts are the same, numbers but for their last digits")
    return lines


def _cell(value: Any) -> str:
    return "not known" if value is None else str(value)


@command.command("verify")
@click.argument("path", metavar="FILE", type=in_file)
@click.option(
    "--key",
    "keys",
    multiple=True,
    required=True,
    metavar="VKEY",
    help="Public key that must have signed, as `audit key` prints it; several times for several.",
)
@json_option
@click.pass_context
def verify(context: click.Context, /, path: Path, keys: tuple[str, ...], as_json: bool) -> None:
    """Check that the audit trail holds an evidence file.

    That it is the one that was entered when it was made.

    Offline. Every part must be what its hash says, and the signed log must hold the digest.
    """
    known = tuple(read_verifier_key(one) for one in keys)
    file = _file(path)
    entry, checkpoint = verified(file, known)
    if as_json:
        print_json(
            {
                "holds": True,
                "digest": file.digest,
                "pile": file.pile,
                "entry": entry,
                "log": checkpoint.origin,
                "log_size": checkpoint.size,
            }
        )
        return
    click.echo(
        f"the file is as it was made at {entry['at']}: {checkpoint.origin} of {checkpoint.size} "
        f"entries holds its digest {file.digest}"
    )
