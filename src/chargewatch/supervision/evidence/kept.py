"""Evidence files in the database: kept with the run, given out with their proof."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from chargewatch.errors import NotFoundError
from chargewatch.storage.database import Database
from chargewatch.storage.office import evidence as rows
from chargewatch.storage.office.evidence import KeptFile
from chargewatch.supervision.audit import (
    PLATFORM,
    Action,
    Actor,
    AuditError,
    prove_entry,
    record,
    verify_proof_file,
)
from chargewatch.supervision.evidence.form import EvidenceFile, packed, unpacked, with_proof
from chargewatch.tlog.merkle import LogError
from chargewatch.tlog.note import Checkpoint, VerifierKey
from chargewatch.tlog.proof import read_proof


@dataclass(frozen=True, kw_only=True, order=True)
class PileName:
    """Whose evidence it is: names that stand in the registry."""

    operator_id: str
    station_id: str
    connector: str


@dataclass(frozen=True, kw_only=True)
class GivenFile:
    """An evidence file as it is handed out."""

    run_id: int
    tier: str
    made_at: datetime
    content: bytes
    is_proven: bool


def _subject(connector: str) -> str:
    return f"connector:{connector}"


async def keep_evidence(
    connection: asyncpg.Connection, run_id: int, files: Sequence[KeptFile]
) -> None:
    """Keep the files of a run and enter their digests, in the run's own transaction."""
    await rows.add_files(connection, run_id, files)
    for file in files:
        await record(
            connection,
            PLATFORM,
            Action.EVIDENCE_MADE,
            _subject(file.connector),
            operator_id=file.operator_id,
            station_id=file.station_id,
            run=run_id,
            tier=file.tier,
            sha256=file.digest,
        )


async def one_pile(database: Database, connector: str, *, operator_id: str | None) -> PileName:
    """Return the pile of a name that has evidence files.

    Raises: NotFoundError when none has, or several.
    """
    async with database.connect() as connection:
        found = await rows.piles_named(connection, connector=connector, operator_id=operator_id)
    if not found:
        raise NotFoundError(
            f"no run has taken evidence of {connector!r}: runs take it of new red and orange "
            f"piles; `chargewatch assess --evidence {connector}` takes it of any"
        )
    if len(found) > 1:
        operators = ", ".join(f"{row['operator_id']}/{row['station_id']}" for row in found)
        raise NotFoundError(f"{connector!r} is at {operators}: say which by --operator")
    return PileName(**dict(found[0]))


async def given_out(database: Database, pile: PileName, *, run_id: int | None = None) -> GivenFile:
    """Return a pile's evidence file of a run (default: its newest), with its proof if there is one.

    Raises: NotFoundError when no such file was taken.
    """
    async with database.connect() as connection:
        row = await rows.one_file(connection, **vars(pile), run_id=run_id)
        if row is None:
            of_run = "" if run_id is None else f" in run {run_id}"
            raise NotFoundError(f"no evidence of {pile.connector!r} was taken{of_run}")
        entry = await rows.audit_entry(
            connection, subject=_subject(pile.connector), digest=row["digest"]
        )
    file = unpacked(bytes(row["content"]))
    if entry is not None:
        # Where no checkpoint holds the entry yet the file is as good, and its proof comes later.
        with suppress(AuditError):
            file = with_proof(file, (await prove_entry(database, entry)).text())
    return GivenFile(
        run_id=int(row["run_id"]),
        tier=row["tier"],
        made_at=row["made_at"],
        content=packed(file),
        is_proven=bool(file.proof),
    )


async def ask_for(database: Database, pile: PileName, actor: Actor, *, now: datetime) -> bool:
    """Ask the next run for a pile's evidence; return whether nobody had asked."""
    async with database.begin() as connection:
        is_new = await rows.want(connection, **vars(pile), asked_at=now, asked_by=actor.name)
        if is_new:
            await record(
                connection,
                actor,
                Action.EVIDENCE_WANTED,
                _subject(pile.connector),
                operator_id=pile.operator_id,
                station_id=pile.station_id,
            )
    return is_new


def entered(file: EvidenceFile) -> dict[str, object] | None:
    """Return the audit entry that a file's proof is of; None without a proof.

    Signatures are not looked at. Raises: LogError when it is of another file.
    """
    if not file.proof:
        return None
    return _of_this(file, read_proof(file.proof).extra.decode(errors="replace"))


def verified(
    file: EvidenceFile, keys: tuple[VerifierKey, ...]
) -> tuple[dict[str, object], Checkpoint]:
    """Return the audit entry that tells a file's digest, and the signed checkpoint that has it.

    Raises: LogError when the proof is missing, of another file, or not signed by the keys.
    """
    if not file.proof:
        raise LogError(
            "the file carries no proof: no checkpoint had been signed when it was given out; "
            "get it again after `chargewatch audit checkpoint`"
        )
    content, checkpoint = verify_proof_file(file.proof, keys=keys)
    return _of_this(file, content), checkpoint


def _of_this(file: EvidenceFile, content: str) -> dict[str, object]:
    try:
        entry = json.loads(content)
        detail = entry["detail"]
        told = {name: detail[name] for name in ("sha256", "operator_id", "station_id", "run")}
        subject, action = entry["subject"], entry["action"]
    except (ValueError, TypeError, KeyError) as exc:
        raise LogError("the proof is of no entry on an evidence file") from exc
    if action != Action.EVIDENCE_MADE or told["sha256"] != file.digest:
        raise LogError(
            "the proof is of another file: this one's digest is not what was entered, so it was "
            "changed since it was made"
        )
    pile = file.pile
    if (subject, told["operator_id"], told["station_id"], told["run"]) != (
        _subject(pile["connector"]),
        pile["operator_id"],
        pile["station_id"],
        file.run["run_id"],
    ):
        raise LogError("the proof's entry names another pile or run than the file")
    return dict(entry)
