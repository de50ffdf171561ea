"""The audit trail: who did what, when, and why; and the proof that nothing of it was changed.

An entry is written in the transaction of what it tells. Its content is canonical JSON (RFC 8785),
chained to the entry before by SHA-256; checkpoints sign the Merkle root over all entries so far
(`chargewatch.tlog`). Who changes an old entry breaks the chain; who makes the whole chain anew
breaks every checkpoint that was signed before, and every copy of the log that somebody took.
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from chargewatch.errors import ChargewatchError, SettingError
from chargewatch.storage import audit as rows
from chargewatch.storage.database import Database
from chargewatch.storage.sql import Connection
from chargewatch.supervision.canonical import canonical
from chargewatch.tlog.merkle import EntryError, GrowingTree, LogError, leaf_hash
from chargewatch.tlog.note import (
    Checkpoint,
    Ed25519Signer,
    Mldsa44Signer,
    Note,
    Signer,
    VerifierKey,
    read_checkpoint,
    read_note,
    sign,
    verified_by,
)
from chargewatch.tlog.proof import Proof, prove, read_proof, verify_proof
from chargewatch.tlog.tiles import LARGEST_ENTRY, read_tiles, write_tiles

FIRST_CHAIN = bytes(32)


class AuditError(ChargewatchError):
    """The audit trail can't be written, signed or exported as asked."""


class Action(StrEnum):
    """What an entry tells that was done."""

    USER_ADDED = "user_added"
    USER_DISABLED = "user_disabled"
    USER_PASSWORD_CHANGED = "user_password_changed"
    SESSION_OPENED = "session_opened"
    SESSION_REFUSED = "session_refused"
    SECOND_FACTOR_BEGUN = "second_factor_begun"
    SECOND_FACTOR_ENDED = "second_factor_ended"
    API_TOKEN_ISSUED = "api_token_issued"
    API_TOKEN_REVOKED = "api_token_revoked"
    OPERATOR_TOKEN_ISSUED = "operator_token_issued"
    OPERATOR_TOKEN_REVOKED = "operator_token_revoked"
    REGISTRY_IMPORTED = "registry_imported"
    CREDIT_PUBLISHED = "credit_published"
    CREDIT_RECOUNTED = "credit_recounted"
    COMMITMENT_MADE = "commitment_made"
    COMMITMENT_PUBLISHED = "commitment_published"
    COMMITMENT_DECIDED = "commitment_decided"
    DRAW_FROZEN = "draw_frozen"
    DRAW_RECUSED = "draw_recused"
    DRAW_PUBLISHED = "draw_published"
    DRAW_THROWN = "draw_thrown"
    DRAW_DRAWN = "draw_drawn"
    DRAW_GROWN = "draw_grown"
    DRAW_OPENED = "draw_opened"
    DRAW_WITHDRAWN = "draw_withdrawn"
    INSPECTION_PLANNED = "inspection_planned"
    INSPECTION_DONE = "inspection_done"
    INSPECTION_CANCELLED = "inspection_cancelled"
    REGISTRY_EDITED = "registry_edited"
    REGISTRY_FILE_KEPT = "registry_file_kept"
    DUE_STEP_TAKEN = "due_step_taken"
    DUE_STEP_TAKEN_BACK = "due_step_taken_back"
    VERIFICATION_ENTERED = "verification_entered"
    VERIFICATION_WITHDRAWN = "verification_withdrawn"
    CHANGE_DECLARED = "change_declared"
    CHANGE_WITHDRAWN = "change_withdrawn"
    RUN_FINISHED = "run_finished"
    EVIDENCE_MADE = "evidence_made"
    EVIDENCE_WANTED = "evidence_wanted"
    JOB_ASKED_FOR = "job_asked_for"
    COMPLAINT_FILED = "complaint_filed"
    COMPLAINT_ACCEPTED = "complaint_accepted"
    COMPLAINT_REFUSED = "complaint_refused"
    COMPLAINT_ANSWERED = "complaint_answered"
    COMPLAINT_ENDED = "complaint_ended"
    COMPLAINT_TOLD = "complaint_told"
    COMPLAINT_CASE_OPENED = "complaint_case_opened"
    COMPLAINT_CONTACT_ERASED = "complaint_contact_erased"
    CASE_OPENED = "case_opened"
    CASE_NAMED_AGAIN = "case_named_again"
    CASE_STEP = "case_step"
    CASE_ENTRY = "case_entry"
    CASE_CLOSED = "case_closed"
    CASE_REOPENED = "case_reopened"
    WEBHOOK_ADDED = "webhook_added"
    WEBHOOK_ENDED = "webhook_ended"
    NOTICE_WISH_CHANGED = "notice_wish_changed"


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who does something: a person, a token, the command line or the platform itself."""

    name: str
    role: str = ""


PLATFORM = Actor(name="platform")
"""Does what nobody asked for: a risk run by the clock."""


def command_line() -> Actor:
    """Return the person at the command line."""
    try:
        return Actor(name=f"command line: {getpass.getuser()}")
    except (KeyError, OSError):
        # A container's user need not have a name.
        return Actor(name="command line")


def chained(before: bytes, content: str) -> bytes:
    """Return the chain value of an entry."""
    return hashlib.sha256(before + content.encode()).digest()


def _told(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def record(
    connection: Connection,
    actor: Actor,
    action: Action,
    subject: str,
    *,
    at: datetime | None = None,
    why: str = "",
    **detail: Any,
) -> int:
    """Add an entry to the trail, as the last thing of a transaction, and return its number.

    Args:
        connection: in the transaction of what the entry tells.
        actor: who does it.
        action: what is done.
        subject: to what, `kind:name`.
        at: when; default now.
        why: the reason that was given.
        detail: what else must be known, JSON values; no secret, no person's data beyond need.

    Raises: AuditError when it is too long for the log.
    """
    told: dict[str, Any] = {
        "at": _told(at or datetime.now(UTC)),
        "actor": actor.name,
        "action": action,
        "subject": subject,
    }
    told |= {"role": actor.role} if actor.role else {}
    told |= {"why": why} if why else {}
    told |= {"detail": detail} if detail else {}
    content = canonical(told).decode()
    if len(content.encode()) > LARGEST_ENTRY:
        raise AuditError(f"what {action} tells of {subject} is longer than {LARGEST_ENTRY} bytes")
    last = await rows.last_entry(connection)
    entry = 0 if last is None else int(last["entry"]) + 1
    before = FIRST_CHAIN if last is None else bytes(last["chain"])
    await rows.add_entry(connection, entry=entry, content=content, chain=chained(before, content))
    return entry


@dataclass(frozen=True, kw_only=True)
class LogKeys:
    """The private keys of the log and its origin, the name under which it is known."""

    origin: str
    ed25519: Ed25519PrivateKey
    mldsa44: MLDSA44PrivateKey

    def signers(self) -> tuple[Signer, ...]:
        """Return what signs a checkpoint."""
        return Ed25519Signer(self.origin, self.ed25519), Mldsa44Signer(self.origin, self.mldsa44)

    def verifiers(self) -> tuple[VerifierKey, ...]:
        """Return the public keys, to be told to everybody who verifies."""
        return (
            Ed25519Signer(self.origin, self.ed25519).verifier(),
            Mldsa44Signer(self.origin, self.mldsa44).verifier(),
        )

    def secret(self) -> str:
        """Return the keys as they are kept, in one line."""
        return json.dumps(
            {
                "origin": self.origin,
                "ed25519": base64.b64encode(self.ed25519.private_bytes_raw()).decode(),
                "mldsa44": base64.b64encode(self.mldsa44.private_bytes_raw()).decode(),
            }
        )


def new_keys(origin: str) -> LogKeys:
    """Return fresh keys for a log.

    Raises: AuditError for an origin that can't be one.
    """
    if not 0 < len(origin.encode()) < 256 or "+" in origin or any(c.isspace() for c in origin):
        raise AuditError(
            f"the log's origin {origin!r} must be one word without `+`, best a name like "
            "metrology.example/audit"
        )
    return LogKeys(
        origin=origin, ed25519=Ed25519PrivateKey.generate(), mldsa44=MLDSA44PrivateKey.generate()
    )


def read_keys(secret: str) -> LogKeys:
    """Return the keys of a setting's value.

    Raises: SettingError that doesn't tell them.
    """
    try:
        told = json.loads(secret)
        return LogKeys(
            origin=str(told["origin"]),
            ed25519=Ed25519PrivateKey.from_private_bytes(base64.b64decode(told["ed25519"])),
            mldsa44=MLDSA44PrivateKey.from_seed_bytes(base64.b64decode(told["mldsa44"])),
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise SettingError(
            "CHARGEWATCH_AUDIT_KEY holds no keys of a log: make them by `chargewatch audit key`"
        ) from exc


@dataclass(frozen=True, kw_only=True)
class TrailReport:
    """What was verified, and where it first fails."""

    entries: int
    checkpoints: int
    root: str  # hexadecimal, over all entries
    signed_size: int  # of the newest checkpoint, 0 without
    broken: int | None  # first entry that is not what it was
    fault: str

    @property
    def holds(self) -> bool:
        """Whether nothing was changed."""
        return not self.fault


def _unfit(entry: int, number: int, content: str, chain: bytes, before: bytes) -> str:
    """Return why an entry doesn't follow the one before; "" if it does."""
    if number != entry:
        return f"entry {entry} is missing: entry {number} comes in its place"
    if chained(before, content) != chain:
        return f"entry {entry} was changed: it is not what its chain value was made of"
    return ""


async def verify_database(
    database: Database, *, keys: tuple[VerifierKey, ...] | None = None
) -> TrailReport:
    """Check the chain of all entries, and that every signed checkpoint is one of them.

    Args:
        database: with the trail.
        keys: that checkpoints must be signed by; None: signatures are not looked at.
    """
    async with database.connect() as connection:
        signed = [(row["size"], row["note"]) for row in await rows.checkpoints(connection)]
    tree, before, last_good, checked = GrowingTree(), FIRST_CHAIN, 0, 0
    fault, broken = "", None
    waiting = list(signed)
    try:
        waiting, checked = _passed(waiting, tree, keys, checked)
        async for row in rows.entries(database):
            content, chain = str(row["content"]), bytes(row["chain"])
            fault = _unfit(tree.size, int(row["entry"]), content, chain, before)
            if fault:
                broken = tree.size
                break
            tree.add(leaf_hash(content.encode()))
            before = chain
            waiting, checked = _passed(waiting, tree, keys, checked)
            last_good = signed[checked - 1][0] if checked else 0
    except LogError as exc:
        fault, broken = f"{exc}; the entries up to {last_good} are as they were signed", last_good
    if not fault and waiting:
        broken = tree.size
        fault = f"a checkpoint was signed with {waiting[0][0]} entries, there are only {tree.size}"
    return TrailReport(
        entries=tree.size,
        checkpoints=checked,
        root=tree.root().hex(),
        signed_size=signed[-1][0] if signed else 0,
        broken=broken,
        fault=fault,
    )


def _passed(
    waiting: list[tuple[int, str]],
    tree: GrowingTree,
    keys: tuple[VerifierKey, ...] | None,
    checked: int,
) -> tuple[list[tuple[int, str]], int]:
    """Check the checkpoints of the tree's present size; return those to come, and how many held."""
    while waiting and waiting[0][0] == tree.size:
        note = read_note(waiting[0][1])
        if keys is not None:
            verified_by(note, keys)
        if read_checkpoint(note.text).root != tree.root():
            raise LogError(f"the first {tree.size} entries are not those that were signed")
        waiting, checked = waiting[1:], checked + 1
    return waiting, checked


def verify_export(folder: Path, *, keys: tuple[VerifierKey, ...] | None = None) -> TrailReport:
    """Check an exported log without a database.

    Raises: InputFileError when a file of it is missing.
    """
    try:
        note, found = read_tiles(folder)
        if keys is not None:
            verified_by(note, keys)
    except LogError as exc:
        entry = exc.entry if isinstance(exc, EntryError) else None
        return TrailReport(
            entries=0, checkpoints=0, root="", signed_size=0, broken=entry, fault=str(exc)
        )
    checkpoint = read_checkpoint(note.text)
    return TrailReport(
        entries=len(found),
        checkpoints=1,
        root=checkpoint.root.hex(),
        signed_size=checkpoint.size,
        broken=None,
        fault="",
    )


async def _contents(database: Database) -> list[bytes]:
    return [str(row["content"]).encode() async for row in rows.entries(database)]


async def make_checkpoint(database: Database, keys: LogKeys, *, now: datetime) -> Note:
    """Sign the log as it stands, keep the checkpoint, and return it.

    Raises: AuditError when the log does not verify: a changed log is never signed.
    """
    verified = await verify_database(database, keys=keys.verifiers())
    if not verified.holds:
        raise AuditError(f"the log is not signed, because it does not verify: {verified.fault}")
    checkpoint = Checkpoint(
        origin=keys.origin, size=verified.entries, root=bytes.fromhex(verified.root)
    )
    note = sign(checkpoint, keys.signers(), at_s=int(now.timestamp()))
    async with database.begin() as connection:
        await rows.add_checkpoint(connection, size=checkpoint.size, made_at=now, note=note.whole())
    return note


async def export(database: Database, folder: Path) -> int:
    """Write the log up to its newest checkpoint as static files; return how many were new.

    Raises: AuditError without a checkpoint; LogError when what was published before would change.
    """
    async with database.connect() as connection:
        signed = await rows.checkpoints(connection)
    if not signed:
        raise AuditError("no checkpoint was signed yet: `chargewatch audit checkpoint` first")
    note = read_note(signed[-1]["note"])
    entries = await _contents(database)
    return write_tiles(folder, entries[: int(signed[-1]["size"])], note)


async def prove_entry(database: Database, entry: int) -> Proof:
    """Return the proof file of an entry, its content beside it, by the newest checkpoint.

    Raises: AuditError without a checkpoint that holds it.
    """
    async with database.connect() as connection:
        signed = await rows.checkpoints(connection)
    if not signed or int(signed[-1]["size"]) <= entry:
        raise AuditError(
            f"no checkpoint holds entry {entry} yet: `chargewatch audit checkpoint` first"
        )
    contents = await _contents(database)
    note = read_note(signed[-1]["note"])
    return prove([leaf_hash(one) for one in contents], entry, note, extra=contents[entry])


def verify_proof_file(text: str, *, keys: tuple[VerifierKey, ...]) -> tuple[str, Checkpoint]:
    """Return the entry that a proof file proves, and the checkpoint that vouches for it.

    Raises: LogError when it doesn't.
    """
    proof = read_proof(text)
    origin = read_checkpoint(proof.note.text).origin
    if origin not in {key.name for key in keys}:
        raise LogError(f"the proof is of the log {origin!r}, whose key was not given")
    checkpoint, _ = verify_proof(proof, proof.extra, keys, origin=origin)
    return proof.extra.decode(errors="replace"), checkpoint


def cosign(
    folder: Path,
    witness: LogKeys,
    *,
    keys: tuple[VerifierKey, ...],
    earlier: Note | None,
    now: datetime,
) -> Note:
    """Return the checkpoint of an exported log with a witness's signature.

    Args:
        folder: of the export.
        witness: keys of the one that signs.
        keys: of the log.
        earlier: the checkpoint that the witness signed last; the log must only have added to it.
        now: time of the signature.

    Raises: LogError when the log does not verify, or is not the one that was signed before.
    """
    note, found = read_tiles(folder)
    verified_by(note, keys)
    if earlier is not None:
        verified_by(earlier, keys)
        before, tree = read_checkpoint(earlier.text), GrowingTree()
        for content in found[: before.size]:
            tree.add(leaf_hash(content))
        if (tree.size, tree.root()) != (before.size, before.root):
            raise LogError(
                f"the log does not hold the {before.size} entries that were signed before: "
                "keep both checkpoints, they prove it"
            )
    signer = Mldsa44Signer(witness.origin, witness.mldsa44)
    signature = signer.sign(read_checkpoint(note.text), at_s=int(now.timestamp()))
    return Note(text=note.text, signatures=(*note.signatures, signature))
