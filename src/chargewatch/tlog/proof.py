"""Proof files: that an entry is in a log, to be verified with nothing but the log's public key.

Source: c2sp.org/tlog-proof, version 1, of 2026-07-22.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chargewatch.tlog.merkle import (
    HASH_SIZE,
    LogError,
    inclusion_proof,
    leaf_hash,
    root_by_inclusion,
)
from chargewatch.tlog.note import (
    Checkpoint,
    Note,
    VerifierKey,
    read_checkpoint,
    read_note,
    verified_by,
)

HEADING = "c2sp.org/tlog-proof@v1"
LONGEST_PROOF = 64


@dataclass(frozen=True, kw_only=True)
class Proof:
    """That an entry is in the log of a signed checkpoint."""

    index: int
    hashes: tuple[bytes, ...]
    note: Note
    extra: bytes = b""

    def text(self) -> str:
        """Return the content of a `.tlog-proof` file."""
        lines = [HEADING]
        if self.extra:
            lines.append(f"extra {base64.b64encode(self.extra).decode()}")
        lines.append(f"index {self.index}")
        lines.extend(base64.b64encode(one).decode() for one in self.hashes)
        return "\n".join([*lines, "", ""]) + self.note.whole()


def prove(leaves: Sequence[bytes], index: int, note: Note, *, extra: bytes = b"") -> Proof:
    """Return the proof that a leaf is in the tree of a signed checkpoint.

    Args:
        leaves: hashes of the log's entries, at least as many as the checkpoint has.
        index: of the entry.
        note: the signed checkpoint.
        extra: is told beside, and proves nothing.

    Raises: LogError when the checkpoint does not have the entry.
    """
    size = read_checkpoint(note.text).size
    if size > len(leaves):
        raise LogError(f"the checkpoint has {size} entries, the log only {len(leaves)}")
    hashes = inclusion_proof(leaves[:size], index)
    return Proof(index=index, hashes=tuple(hashes), note=note, extra=extra)


def read_proof(text: str) -> Proof:
    """Return the proof of a file's content.

    Raises: LogError.
    """
    head, blank, rest = text.partition("\n\n")
    lines = head.split("\n")
    if not blank or lines[0] != HEADING:
        raise LogError(f"a proof file begins with {HEADING} and has an empty line and a checkpoint")
    extra, at = b"", 1
    if len(lines) > 1 and lines[1].startswith("extra "):
        extra, at = _decoded(lines[1].removeprefix("extra ")), 2
    label, _, index = (lines[at] if len(lines) > at else "").partition(" ")
    if label != "index" or not index.isascii() or not index.isdigit() or len(index) > 19:
        raise LogError("a proof file tells the `index` of its entry")
    hashes = tuple(_decoded(line) for line in lines[at + 1 :])
    if len(hashes) > LONGEST_PROOF or any(len(one) != HASH_SIZE for one in hashes):
        raise LogError(f"a proof has at most {LONGEST_PROOF} hashes of {HASH_SIZE} bytes")
    return Proof(index=int(index), hashes=hashes, note=read_note(rest), extra=extra)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise LogError(f"a line of the proof is not base64: {exc}") from exc


def verify_proof(
    proof: Proof, entry: bytes, keys: Iterable[VerifierKey], *, origin: str
) -> tuple[Checkpoint, list[VerifierKey]]:
    """Return the checkpoint that vouches for an entry, and the known keys that signed it.

    Raises: LogError when it doesn't.
    """
    checkpoint = read_checkpoint(proof.note.text)
    if checkpoint.origin != origin:
        raise LogError(f"the proof is of the log {checkpoint.origin!r}, not of {origin!r}")
    signed = verified_by(proof.note, keys)
    root = root_by_inclusion(
        leaf_hash(entry), index=proof.index, size=checkpoint.size, proof=proof.hashes
    )
    if root != checkpoint.root:
        raise LogError(f"the entry is not number {proof.index} of the log that was signed")
    return checkpoint, signed
