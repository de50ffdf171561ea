"""The form of an evidence file: a ZIP of a manifest, arrays, and the proof that it was entered.

`manifest.json` is canonical JSON (RFC 8785) and tells type, shape, place and SHA-256 of every array
in `arrays.bin` (little-endian, one behind the other). The SHA-256 of the manifest is the digest of
the file: it is entered in the audit trail when the file is made. `proof.tlog-proof` beside them is
no part of it, and comes when a checkpoint has been signed.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from chargewatch.errors import ChargewatchError
from chargewatch.supervision.canonical import canonical

FORMAT = "chargewatch-evidence"
FORMAT_VERSION = 1
MANIFEST, ARRAYS, PROOF = "manifest.json", "arrays.bin", "proof.tlog-proof"
MOST_BYTES: Mapping[str, int] = {MANIFEST: 8_000_000, ARRAYS: 400_000_000, PROOF: 200_000}
"""Bytes of each part once unpacked, at most."""
MOST_GROWTH = 200
"""Times that a part may be larger than it is packed, at most: deflate reaches 1,032 with zeros."""
MOST_EVIDENCE_BYTES = 100_000_000
PACKED_AGAIN = 6
DTYPES = {"<f8", "<f4", "<i8", "<i4", "<i2", "|i1", "<u8", "|b1"}
_MADE_AT = (1980, 1, 1, 0, 0, 0)
"""Of the ZIP's members: the same content gives the same bytes."""

Arrays = Mapping[str, NDArray[Any]]


class EvidenceError(ChargewatchError):
    """An evidence file is none, is damaged, or does not hold what it must."""


@dataclass(frozen=True, kw_only=True)
class EvidenceFile:
    """What an evidence file holds."""

    manifest: Mapping[str, Any]
    arrays: Arrays
    digest: str  # SHA-256 of the manifest, hexadecimal
    proof: str = ""  # content of a `.tlog-proof` file; "" without

    @property
    def pile(self) -> Mapping[str, str]:
        """The connector, its station and its operator."""
        return dict(self.manifest["pile"])

    @property
    def run(self) -> Mapping[str, Any]:
        """The risk run that the file is of."""
        return dict(self.manifest["run"])


def made(told: Mapping[str, Any], arrays: Arrays) -> EvidenceFile:
    """Return an evidence file of what it tells and its arrays."""
    listed, place = [], 0
    for name, values in sorted(arrays.items()):
        content = _bytes(values)
        listed.append(
            {
                "name": name,
                "dtype": _dtype(values),
                "shape": list(values.shape),
                "begin": place,
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
        place += len(content)
    manifest = {"format": FORMAT, "version": FORMAT_VERSION, **told, "arrays": listed}
    text = canonical(manifest)
    return EvidenceFile(
        manifest=orjson.loads(text), arrays=arrays, digest=hashlib.sha256(text).hexdigest()
    )


def _dtype(values: NDArray[Any]) -> str:
    name = values.dtype.newbyteorder("<").str
    if name not in DTYPES:
        raise EvidenceError(f"an evidence file holds no arrays of {values.dtype}")
    return name


def _bytes(values: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(values, dtype=_dtype(values)).tobytes()


def packed(file: EvidenceFile) -> bytes:
    """Return the bytes of an evidence file; the same file gives the same bytes."""
    parts = {
        MANIFEST: canonical(file.manifest),
        ARRAYS: b"".join(_bytes(values) for _, values in sorted(file.arrays.items())),
    }
    if file.proof:
        parts[PROOF] = file.proof.encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=PACKED_AGAIN) as archive:
        for name, content in parts.items():
            member = zipfile.ZipInfo(name, _MADE_AT)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, content)
    return buffer.getvalue()


def unpacked(content: bytes) -> EvidenceFile:
    """Return what the bytes of an evidence file hold, every part as its hash says.

    Raises: EvidenceError that names the part and what is wrong with it.
    """
    if len(content) > MOST_EVIDENCE_BYTES:
        raise EvidenceError(f"an evidence file has at most {MOST_EVIDENCE_BYTES // 1_000_000} MB")
    parts = _parts(content)
    for name in (MANIFEST, ARRAYS):
        if name not in parts:
            raise EvidenceError(f"the file has no {name}: it is no evidence file, or cut off")
    manifest = _manifest(parts[MANIFEST])
    return EvidenceFile(
        manifest=manifest,
        arrays=_read_arrays(manifest, parts[ARRAYS]),
        digest=hashlib.sha256(parts[MANIFEST]).hexdigest(),
        proof=_text(parts.get(PROOF, b"")),
    )


def with_proof(file: EvidenceFile, proof: str) -> EvidenceFile:
    """Return a file with the proof that its digest is in the audit trail."""
    return replace(file, proof=proof)


def _parts(content: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if len(set(names)) != len(names) or not set(names) <= set(MOST_BYTES):
                raise EvidenceError(
                    f"an evidence file has the parts {', '.join(MOST_BYTES)} and no others"
                )
            return {member.filename: _read(archive, member) for member in members}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as exc:
        raise EvidenceError(f"the file is no ZIP, or is damaged: {exc}") from exc
    except (RuntimeError, ValueError) as exc:
        raise EvidenceError(f"the ZIP can't be read: {exc}") from exc


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    most = MOST_BYTES[member.filename]
    bomb = member.file_size > MOST_GROWTH * max(member.compress_size, 1)
    if member.file_size > most or (bomb and member.file_size > MOST_BYTES[PROOF]):
        raise EvidenceError(
            f"{member.filename} would unpack to {member.file_size} bytes: more than it may"
        )
    with archive.open(member) as stream:
        # What a ZIP says of a member's size need not be true.
        content = stream.read(most + 1)
    if len(content) > most:
        raise EvidenceError(f"{member.filename} has more than {most} bytes")
    return content


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        raise EvidenceError(f"{PROOF} is no text") from exc


def _manifest(content: bytes) -> dict[str, Any]:
    try:
        manifest = orjson.loads(content)
    except orjson.JSONDecodeError as exc:
        raise EvidenceError(f"{MANIFEST} is no JSON: {exc}") from exc
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise EvidenceError(f"{MANIFEST} does not say that it is of {FORMAT}")
    if manifest.get("version") != FORMAT_VERSION:
        raise EvidenceError(
            f"the file is of version {manifest.get('version')!r}, this program reads "
            f"{FORMAT_VERSION}: use the one that it was made with ({_maker(manifest)})"
        )
    kinds = {"pile": dict, "run": dict, "row": dict, "values": dict, "arrays": list}
    for name, kind in (kinds | {"signals": list, "made_with": dict}).items():
        if not isinstance(manifest.get(name), kind):
            raise EvidenceError(f"{MANIFEST} does not tell {name!r}")
    _require_names(manifest)
    return manifest


def _require_names(manifest: Mapping[str, Any]) -> None:
    for part, names in {
        "pile": ("connector", "station_id", "operator_id"),
        "run": ("as_of", "result_digest", "version"),
    }.items():
        for name in names:
            if not isinstance(manifest[part].get(name), str):
                raise EvidenceError(f"{MANIFEST} does not tell {name!r} of {part!r}")
    if not isinstance(manifest["run"].get("run_id"), int):
        raise EvidenceError(f"{MANIFEST} does not tell 'run_id' of 'run'")


def _maker(manifest: Mapping[str, Any]) -> str:
    made_with = manifest.get("made_with")
    told = made_with.get("chargewatch") if isinstance(made_with, dict) else None
    return f"chargewatch {told}" if isinstance(told, str) else "it does not say which"


def _read_arrays(manifest: Mapping[str, Any], content: bytes) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    place = 0
    for told in manifest["arrays"]:
        try:
            name, dtype, shape = str(told["name"]), str(told["dtype"]), tuple(told["shape"])
            begin, digest = told["begin"], told["sha256"]
        except (TypeError, KeyError) as exc:
            raise EvidenceError(f"{MANIFEST} tells of an array without its {exc}") from exc
        sized = all(type(n) is int and 0 <= n <= MOST_BYTES[ARRAYS] for n in shape)
        if dtype not in DTYPES or not sized or begin != place or len(shape) > 4 or name in arrays:
            raise EvidenceError(f"{MANIFEST} tells of no possible array by {name!r}")
        size = np.dtype(dtype).itemsize
        for n in shape:
            size *= n
        part = content[place : place + size]
        if len(part) != size:
            raise EvidenceError(f"{ARRAYS} ends within the array {name!r}")
        if hashlib.sha256(part).hexdigest() != digest:
            raise EvidenceError(f"the array {name!r} was changed: it is not what its hash says")
        arrays[name] = np.frombuffer(part, dtype=dtype).reshape(shape).copy()
        place += size
    if place != len(content):
        raise EvidenceError(f"{ARRAYS} is longer than its arrays")
    return arrays
