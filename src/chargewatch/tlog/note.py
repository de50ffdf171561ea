"""Signed notes and checkpoints of C2SP: a text and under it the signatures of those who vouch.

Ed25519 signs the text (type 0x01); an ML-DSA-44 cosignature (0x06) signs who signs, when, the log's
origin, its size and its root. Keys that a reader doesn't know are ignored: so a log changes its
key, and witnesses sign beside it. Source: c2sp.org/signed-note, tlog-checkpoint, tlog-cosignature,
of 2026-07-22.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from chargewatch.tlog.merkle import HASH_SIZE, LogError

DASH = "\N{EM DASH} "
LARGEST_NOTE = 1 << 20
SUBTREE_LABEL = b"subtree/v1\n\x00"


class KeyType(IntEnum):
    """Identifier byte of a signature's type."""

    ED25519 = 0x01
    COSIGNED_ED25519 = 0x04
    COSIGNED_MLDSA44 = 0x06


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a log says of itself at one moment."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the note's text."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def read_checkpoint(text: str) -> Checkpoint:
    """Return the checkpoint of a note's text; lines behind the third are let be.

    Raises: LogError.
    """
    lines = text.removesuffix("\n").split("\n")
    if len(lines) < 3 or not all(lines):
        raise LogError("a checkpoint has three lines at least: origin, size, root")
    size, root = lines[1], _decoded(lines[2], "the root of a checkpoint")
    if not size.isascii() or not size.isdigit() or (size[0] == "0" and size != "0"):
        raise LogError(f"{size!r} is not the size of a log")
    if len(root) != HASH_SIZE:
        raise LogError(f"the root of a checkpoint has {len(root)} bytes, it must have {HASH_SIZE}")
    return Checkpoint(origin=lines[0], size=int(size), root=root)


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One signature line of a note."""

    name: str
    key_id: bytes
    content: bytes

    def line(self) -> str:
        """Return the line with its line feed."""
        return f"{DASH}{self.name} {base64.b64encode(self.key_id + self.content).decode()}\n"


@dataclass(frozen=True, kw_only=True)
class Note:
    """A text and its signatures, none of them verified yet."""

    text: str
    signatures: tuple[Signature, ...]

    def whole(self) -> str:
        """Return the signed note as it is published."""
        return self.text + "\n" + "".join(one.line() for one in self.signatures)


def read_note(whole: str) -> Note:
    """Return text and signatures of a note.

    Raises: LogError.
    """
    if len(whole) > LARGEST_NOTE:
        raise LogError("a signed note of more than 1 MiB is not read")
    if any(ord(c) < 0x20 and c != "\n" for c in whole):
        raise LogError("a signed note holds no control characters but line feeds")
    text, blank, below = whole.rpartition("\n\n")
    if not blank or not below.endswith("\n"):
        raise LogError("a signed note is a text, an empty line and signature lines")
    return Note(
        text=text + "\n",
        signatures=tuple(_signature(line) for line in below.removesuffix("\n").split("\n")),
    )


def _signature(line: str) -> Signature:
    name, space, content = line.removeprefix(DASH).partition(" ")
    if not line.startswith(DASH) or not space or not _is_key_name(name):
        raise LogError(f"{line[:80]!r} is no signature line of a note")
    raw = _decoded(content, "a signature")
    if len(raw) < 5:
        raise LogError("a signature has a key's number of four bytes and something behind it")
    return Signature(name=name, key_id=raw[:4], content=raw[4:])


def _decoded(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise LogError(f"{what} is not base64: {exc}") from exc


def _is_key_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() for c in name)


def _key_id(name: str, kind: KeyType, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


def _cosigned(name: str, at_s: int, checkpoint: Checkpoint) -> bytes:
    """Return the message of an ML-DSA-44 cosignature of a whole tree."""
    who, log = name.encode(), checkpoint.origin.encode()
    if not 0 < len(who) < 256 or not 0 < len(log) < 256:
        raise LogError("names of logs and of those who sign them have 1 to 255 bytes")
    return b"".join(
        [
            SUBTREE_LABEL,
            bytes([len(who)]) + who,
            struct.pack(">Q", at_s),
            bytes([len(log)]) + log,
            struct.pack(">QQ", 0, checkpoint.size),
            checkpoint.root,
        ]
    )


class Signer(Protocol):
    """Signs checkpoints under a name."""

    def sign(self, checkpoint: Checkpoint, *, at_s: int) -> Signature:
        """Return the signature of a checkpoint."""


@dataclass(frozen=True)
class Ed25519Signer:
    """Signs the text."""

    name: str
    key: Ed25519PrivateKey

    def sign(self, checkpoint: Checkpoint, *, at_s: int) -> Signature:
        """Return the signature; it holds no time."""
        del at_s
        content = self.key.sign(checkpoint.text().encode())
        return Signature(name=self.name, key_id=self.verifier().key_id, content=content)

    def verifier(self) -> VerifierKey:
        """Return the public key."""
        public = self.key.public_key().public_bytes_raw()
        return VerifierKey(name=self.name, kind=KeyType.ED25519, public=public)


@dataclass(frozen=True)
class Mldsa44Signer:
    """Signs name, time, origin, size and root, so that quantum computers don't help a forger."""

    name: str
    key: MLDSA44PrivateKey

    def sign(self, checkpoint: Checkpoint, *, at_s: int) -> Signature:
        """Return the cosignature."""
        signed = self.key.sign(_cosigned(self.name, at_s, checkpoint))
        content = struct.pack(">Q", at_s) + signed
        return Signature(name=self.name, key_id=self.verifier().key_id, content=content)

    def verifier(self) -> VerifierKey:
        """Return the public key."""
        public = self.key.public_key().public_bytes_raw()
        return VerifierKey(name=self.name, kind=KeyType.COSIGNED_MLDSA44, public=public)


@dataclass(frozen=True, kw_only=True)
class VerifierKey:
    """A public key under its name, as it is told to those who verify."""

    name: str
    kind: KeyType
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The four bytes that stand before a signature."""
        return _key_id(self.name, self.kind, self.public)

    def text(self) -> str:
        """Return the key in its published form."""
        public = base64.b64encode(bytes([self.kind]) + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{public}"

    def verifies(self, signature: Signature, text: str) -> bool:
        """Return whether a signature of this key is one of the text."""
        try:
            self._verify(signature.content, text)
        except (InvalidSignature, LogError, struct.error, ValueError):
            return False
        return True

    def _verify(self, content: bytes, text: str) -> None:
        if self.kind is KeyType.ED25519:
            Ed25519PublicKey.from_public_bytes(self.public).verify(content, text.encode())
            return
        (at_s,) = struct.unpack(">Q", content[:8])
        if self.kind is KeyType.COSIGNED_ED25519:
            message = f"cosignature/v1\ntime {at_s}\n{text}".encode()
            Ed25519PublicKey.from_public_bytes(self.public).verify(content[8:], message)
            return
        message = _cosigned(self.name, at_s, read_checkpoint(text))
        MLDSA44PublicKey.from_public_bytes(self.public).verify(content[8:], message)


def read_verifier_key(text: str) -> VerifierKey:
    """Return a public key of its published form.

    Raises: LogError.
    """
    name, _, rest = text.strip().partition("+")
    number, plus, encoded = rest.partition("+")
    if not plus or not _is_key_name(name):
        raise LogError("a verifier key is name+number+key, as `audit key` prints it")
    raw = _decoded(encoded, "a verifier key")
    try:
        key = VerifierKey(name=name, kind=KeyType(raw[0]), public=raw[1:])
    except (IndexError, ValueError) as exc:
        raise LogError(f"the key of {name} is of no type that is known here") from exc
    if key.key_id.hex() != number:
        raise LogError(f"the key of {name} does not have the number {number}: is it complete?")
    return key


def sign(checkpoint: Checkpoint, signers: Iterable[Signer], *, at_s: int) -> Note:
    """Return a checkpoint with the signatures of those who vouch for it."""
    return Note(
        text=checkpoint.text(),
        signatures=tuple(signer.sign(checkpoint, at_s=at_s) for signer in signers),
    )


def verified_by(note: Note, keys: Iterable[VerifierKey]) -> list[VerifierKey]:
    """Return the known keys that signed a note; what unknown ones signed is ignored.

    Raises: LogError when a known key's signature does not verify, or none of them signed.
    """
    known = {(key.name, key.key_id): key for key in keys}
    good: list[VerifierKey] = []
    for one in note.signatures:
        key = known.get((one.name, one.key_id))
        if key is None:
            continue
        if not key.verifies(one, note.text):
            raise LogError(f"the signature of {key.name} does not verify: the note was changed")
        if key not in good:
            good.append(key)
    if not good:
        raise LogError("none of the keys that you trust signed this")
    return good
