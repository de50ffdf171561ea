"""Files that people hand in: what is taken, by its bytes, and what is not, whatever its name."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import openpyxl
import pytest

from chargewatch.supervision.file_types import XLSX, FileError, found_type, plain_name


def png(*, behind: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixel = zlib.compress(b"\0\xff")
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", pixel)
        + chunk(b"IEND", b"")
        + behind
    )


def jpeg(*, behind: bytes = b"") -> bytes:
    segment = b"\xff\xe0" + struct.pack(">H", 16) + b"JFIF\0\1\1\0\0\1\0\1\0\0"
    scan = b"\xff\xda" + struct.pack(">H", 8) + b"\1\1\0\0\x3f\0" + b"\x12\x34"
    return b"\xff\xd8" + segment + scan + b"\xff\xd9" + behind


def workbook() -> bytes:
    book = openpyxl.Workbook()
    book.active.append(["load", "error"])
    kept = io.BytesIO()
    book.save(kept)
    return kept.getvalue()


PDF = b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n"

TAKEN = {
    "certificate.pdf": (PDF, "application/pdf"),
    "CERTIFICATE.PDF": (PDF, "application/pdf"),
    "seal.png": (png(), "image/png"),
    "seal.jpg": (jpeg(), "image/jpeg"),
    "seal.jpeg": (jpeg(behind=b"depth map of a telephone"), "image/jpeg"),
    "dcc.xml": (b'<?xml version="1.0"?>\n<dcc:digital xmlns:dcc="x"/>', "application/xml"),
    "bom.xml": ("\ufeff<检定/>".encode(), "application/xml"),
    "record.json": (b'{"FV": "1.0"}', "application/json"),
    "list.json": (b" [1, 2]", "application/json"),
    "points.csv": (b"load,error\n0.5,0.012\n", "text/csv"),
    "gbk.csv": ("负荷,示值误差\n".encode("gb18030"), "text/csv"),
    "note.txt": ("现场检定记录\n".encode(), "text/plain"),
    "ocmf.txt": (b'OCMF|{"FV":"1.0"}|{"SD":"00"}', "text/plain"),
    "points.xlsx": (workbook(), XLSX),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_an_office_works_with_is_taken_for_what_it_is(name: str) -> None:
    content, media_type = TAKEN[name]
    assert found_type(name, content) == media_type


HTML = b"<!DOCTYPE html><html><script>alert(1)</script></html>"

REFUSED = {
    "page as picture": ("seal.png", HTML, "page"),
    "page": ("seal.html", HTML, "page"),
    "page without a doctype": ("seal.txt", b"<html><body onload=alert(1)></body></html>", "page"),
    "page that is no XML": ("seal.csv", b"\n <img src=x onerror=alert(1)>", "page"),
    "drawing with script": (
        "seal.xml",
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "svg",
    ),
    "page inside XML": (
        "dcc.xml",
        b'<a xmlns:h="http://www.w3.org/1999/xhtml"><h:script>alert(1)</h:script></a>',
        "script",
    ),
    "entities that blow up": (
        "dcc.xml",
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbb">]><a>&b;</a>',
        "page or damaged",
    ),
    "picture with a page behind": ("seal.png", png(behind=HTML), "something follows"),
    "picture with a zip behind": ("seal.png", png(behind=workbook()), "something follows"),
    "PDF with a zip behind": ("a.pdf", PDF + workbook() + b" " * 2000, "no end"),
    "JPEG that is none": ("a.jpg", b"\xff\xd8\xff<script>alert(1)</script>", "damaged"),
    "JPEG without an image": ("a.jpg", b"\xff\xd8\xff\xe0\0\4ab", "damaged"),
    "picture called a certificate": ("certificate.pdf", png(), "image/png"),
    "program": ("invoice.pdf", b"MZ\x90\0\3\0\0\0" + bytes(range(256)), "no kind"),
    "program without a name's ending": ("setup", b"\x7fELF\2\1\1\0" + bytes(100), "no kind"),
    "text called a picture": ("seal.jpg", b"nothing to see", "text/plain"),
    "text without an ending": ("README", b"nothing to see", "README.txt"),
    "script": ("run.sh", b"#!/bin/sh\nrm -rf /\n", "text/plain"),
    "zip": ("all.zip", b"PK\3\4" + bytes(40), "zip"),
    "zip called a workbook": ("points.xlsx", b"PK\3\4" + bytes(40), "zip"),
    "nothing": ("note.txt", b"", "empty"),
    "JSON that is none": ("record.json", b'{"FV": ', "text/plain"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_something_else_is_refused_with_what_it_is(case: str) -> None:
    name, content, words = REFUSED[case]
    with pytest.raises(FileError, match=words) as caught:
        found_type(name, content)
    assert name in str(caught.value)


def test_macros_are_refused() -> None:
    kept = io.BytesIO(workbook())
    with zipfile.ZipFile(kept, "a") as archive:
        archive.writestr("xl/vbaProject.bin", b"x")
    with pytest.raises(FileError, match="macros"):
        found_type("points.xlsx", kept.getvalue())


def test_a_workbook_that_unpacks_to_gigabytes_is_refused_without_unpacking() -> None:
    kept = io.BytesIO(workbook())
    with zipfile.ZipFile(kept, "a", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"xl/worksheets/more{number}.xml", bytes(80 << 20))
    assert len(kept.getvalue()) < 1_000_000
    with pytest.raises(FileError, match="more than 200 MiB"):
        found_type("points.xlsx", kept.getvalue())


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("certificate.pdf", "certificate.pdf"),
        ("../../etc/passwd.txt", "passwd.txt"),
        ("C:\\Users\\wu\\检定证书.pdf", "检定证书.pdf"),
        ("a\r\nSet-Cookie: b=c.pdf", "aSet-Cookie: b=c.pdf"),
        ("  .hidden.pdf ", "hidden.pdf"),
        ("x" * 300 + ".pdf", "x" * 116 + ".pdf"),
        ("\u202efdp.exe.pdf", "fdp.exe.pdf"),
    ],
)
def test_only_the_last_part_of_a_name_is_kept(sent: str, kept: str) -> None:
    assert plain_name(sent) == kept


@pytest.mark.parametrize("sent", ["", "/", "..", "a/..", "\\", "\0", " . "])
def test_a_file_without_a_name_is_refused(sent: str) -> None:
    with pytest.raises(FileError, match="give it a name"):
        plain_name(sent)
