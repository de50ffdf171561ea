"""Signed records as drivers have them: plain OCMF, or the XML of the transparency software.

Whatever comes is hostile until it is read: XML with a document type is refused (no entities, no
outside files), sizes and numbers of records are bounded, and nothing is kept.
Source: S.A.F.E. e.V., Transparenzsoftware, its XML container (values, value, signedData,
encodedData, publicKey).
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from dataclasses import dataclass

from chargewatch.errors import ChargewatchError, RegistryFileError
from chargewatch.supervision.ocmf import OcmfError, OcmfRecord, read_records
from chargewatch.wire.registry.xml_events import Attributes, attribute, read_xml

MOST_RECORD_BYTES = 65_536
MOST_DRIVER_RECORDS = 10
"""Records of one charge: a meter writes one or two."""
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")


class DriverFileError(ChargewatchError):
    """What a driver gave holds no record that can be read.

    Attributes:
        code: why, for the page's words.
        detail: what was found, in the words of `domain.signed_words` or a name; else empty.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class DriverRecord:
    """One record, its text as it came, and the public key beside it, "" without."""

    text: str
    record: OcmfRecord
    key: str


@dataclass
class _Value:
    """One `value` of the container."""

    signed: str = ""
    form: str = ""
    encoding: str = ""
    key: str = ""


class _Container:
    """Reads the container; what stands elsewhere in it is nothing to us."""

    def __init__(self) -> None:
        self.values: list[_Value] = []
        self._into = ""

    def start(self, name: str, attributes: Attributes) -> None:
        """Begin an element."""
        if name == "value":
            if len(self.values) >= MOST_DRIVER_RECORDS:
                raise DriverFileError("too_many")
            self.values.append(_Value())
        elif self.values and name in {"signedData", "encodedData"}:
            value = self.values[-1]
            value.form = (attribute(attributes, "format") or "").strip()
            value.encoding = (attribute(attributes, "encoding") or "").strip().lower()
            value.signed, self._into = "", "signed"
        elif self.values and name == "publicKey":
            self._into = "key"

    def end(self, name: str) -> None:
        """End an element."""
        if name in {"signedData", "encodedData", "publicKey"}:
            self._into = ""

    def text(self, text: str) -> None:
        """Take text."""
        if self._into and self.values:
            value = self.values[-1]
            setattr(value, self._into, getattr(value, self._into) + text)


def read_driver_file(content: bytes) -> list[DriverRecord]:
    """Return the records that a driver pasted or uploaded.

    Raises: DriverFileError that says why there are none.
    """
    if len(content) > MOST_RECORD_BYTES:
        raise DriverFileError("too_large")
    start = content.lstrip()[:200]
    if b"\x00" not in start and start.removeprefix(_BOMS[0][0]).lstrip().startswith(b"<"):
        return _of_container(content)
    text = _decoded(content).strip("\ufeff \t\r\n\0")
    if not text:
        raise DriverFileError("empty")
    if text.startswith("<"):
        # Its declaration names the encoding that it no longer has.
        return _of_container(_DECLARATION.sub("", text).encode("utf-8"))
    return _of_text(text, key="")


def _decoded(content: bytes) -> str:
    mark, encoding = next((m for m in _BOMS if content.startswith(m[0])), (b"", "utf-8"))
    try:
        return content.removeprefix(mark).decode(encoding)
    except UnicodeDecodeError as exc:
        raise DriverFileError("not_text") from exc


def _of_container(content: bytes) -> list[DriverRecord]:
    container = _Container()
    try:
        read_xml("record", io.BytesIO(content.lstrip()), container)
    except RegistryFileError as exc:
        raise DriverFileError("damaged_xml") from exc
    found: list[DriverRecord] = []
    for value in container.values:
        found += _of_value(value)
    if not found:
        raise DriverFileError("no_records")
    return _few(found)


def _of_value(value: _Value) -> list[DriverRecord]:
    signed = value.signed.strip()
    if value.encoding == "hex" and re.fullmatch(r"(?:[0-9A-Fa-f]{2})+", signed):
        signed = bytes.fromhex(signed).decode("utf-8", "replace")
    elif value.encoding == "base64":
        try:
            signed = base64.b64decode(re.sub(r"\s+", "", signed), validate=True).decode("utf-8")
        except (binascii.Error, ValueError) as exc:
            raise DriverFileError("not_text") from exc
    if value.form.upper() not in {"", "OCMF"}:
        raise DriverFileError("other_format", value.form[:32])
    if not signed:
        raise DriverFileError("no_records")
    return _of_text(signed, key=value.key.strip())


def _of_text(text: str, *, key: str) -> list[DriverRecord]:
    try:
        records = read_records(text)
    except OcmfError as exc:
        raise DriverFileError("unreadable", str(exc)) from exc
    return _few([DriverRecord(text, record, key or record.own_key) for record in records])


def _few(found: list[DriverRecord]) -> list[DriverRecord]:
    if len(found) > MOST_DRIVER_RECORDS:
        raise DriverFileError("too_many")
    return found
