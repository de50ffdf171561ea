"""Time stamps by RFC 3161, of a small authority that is openssl's own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from chargewatch.errors import InputFileError
from chargewatch.storage.database import open_database
from chargewatch.supervision.draw_bundle import bundle_text
from chargewatch.supervision.inspections import draws
from chargewatch.supervision.timestamp import (
    TimestampError,
    looked_at,
    read_certificates,
    time_stamp,
)
from inspection_steps import QIAN, ZHAO, add_inspectors, clock_after, wanted_draw
from running import RunCommand
from web_city import seed_city

CONFIGURATION = """
[tsa]
default_tsa = one
[one]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
default_policy = 1.2.3.4.1
digests = sha256, sha512
signer_digest = sha256
accuracy = secs:1
ess_cert_id_alg = sha256
[req]
distinguished_name = dn
[dn]
[ca]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


def openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Return address and root certificate of an authority; /broken answers nonsense."""
    folder, config = tmp_path, str(tmp_path / "tsa.cnf")
    (folder / "tsa.cnf").write_text(CONFIGURATION.format(folder=folder))
    (folder / "serial").write_text("01\n")
    for name, subject in (("ca", "/CN=Test root"), ("tsa", "/CN=Test TSA")):
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out",
                str(folder / f"{name}.key"))  # fmt: skip
        openssl("req", "-new", "-config", config, "-key", str(folder / f"{name}.key"), "-subj",
                subject, "-out", str(folder / f"{name}.csr"))  # fmt: skip
    sign = ("x509", "-req", "-days", "30", "-extfile", config, "-sha256")
    openssl(*sign, "-in", str(folder / "ca.csr"), "-signkey", str(folder / "ca.key"),
            "-extensions", "ca", "-out", str(folder / "ca.pem"))  # fmt: skip
    openssl(*sign, "-in", str(folder / "tsa.csr"), "-CA", str(folder / "ca.pem"), "-CAkey",
            str(folder / "ca.key"), "-CAcreateserial", "-extensions", "leaf", "-out",
            str(folder / "tsa.pem"))  # fmt: skip

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["content-length"]))
            (folder / "query.tsq").write_bytes(asked)
            openssl("ts", "-reply", "-config", config, "-queryfile", str(folder / "query.tsq"),
                    "-out", str(folder / "reply.tsr"))  # fmt: skip
            body = (folder / "reply.tsr").read_bytes()
            if self.path == "/old":
                body = (folder / "old.tsr").read_bytes()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"nonsense" if self.path == "/broken" else body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder / "ca.pem"
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


async def test_a_stamp_is_of_one_text_and_verifies_by_the_root(
    authority: tuple[str, Path], tmp_path: Path
) -> None:
    url, root = authority
    token = await time_stamp(url, "a list\n")
    roots = read_certificates(root)
    found = looked_at(token, "a list\n", roots=roots)
    assert (found.verified, found.authority) == (True, "CN=Test TSA")
    assert looked_at(token, "a list\n").verified is False
    with pytest.raises(TimestampError, match="another text"):
        looked_at(token, "another list\n", roots=roots)
    # openssl itself says the same.
    (tmp_path / "list.txt").write_text("a list\n")
    (tmp_path / "token.tsr").write_bytes(token)
    openssl("ts", "-verify", "-data", str(tmp_path / "list.txt"), "-in",
            str(tmp_path / "token.tsr"), "-CAfile", str(root))  # fmt: skip
    openssl("req", "-x509", "-config", str(tmp_path / "tsa.cnf"), "-key", str(tmp_path / "tsa.key"),
            "-subj", "/CN=Somebody else", "-days", "3", "-extensions", "ca", "-out",
            str(tmp_path / "other.pem"))  # fmt: skip
    with pytest.raises(TimestampError, match="does not verify"):
        looked_at(token, "a list\n", roots=read_certificates(tmp_path / "other.pem"))
    with pytest.raises(InputFileError, match="no root"):
        read_certificates(tmp_path / "tsa.pem")
    with pytest.raises(InputFileError, match="no certificate"):
        read_certificates(tmp_path / "list.txt")


async def test_an_authority_that_answers_otherwise_gives_no_stamp(
    authority: tuple[str, Path], tmp_path: Path
) -> None:
    url, _ = authority
    (tmp_path / "old.tsr").write_bytes(await time_stamp(url, "a list\n"))
    for path, match in (("/broken", "no answer of a time-stamp"), ("/old", "another request")):
        with pytest.raises(TimestampError, match=match):
            await time_stamp(url + path, "a list\n")
    for wrong, match in (("ftp://x", "no http"), ("http://127.0.0.1:9/", "does not answer")):
        with pytest.raises(TimestampError, match=match):
            await time_stamp(wrong, "a list\n")


async def test_a_draw_carries_its_stamp_and_verify_looks_at_it(
    authority: tuple[str, Path], database_url: str, tmp_path: Path, run_command: RunCommand
) -> None:
    url, root = authority
    async with open_database(database_url) as database:
        await seed_city(database)
        await add_inspectors(database)
        await draws.freeze(database, wanted_draw(), actor=ZHAO, clock=clock_after(-1))
        with pytest.raises(TimestampError):
            await draws.publish(
                database, "2026-12", tsa_url=url + "/broken", actor=ZHAO, clock=clock_after(0)
            )
        await draws.publish(database, "2026-12", tsa_url=url, actor=ZHAO, clock=clock_after(0))
        for who, witness in ((ZHAO, "wu"), (QIAN, "he")):
            await draws.throw(
                database, "2026-12", witness=witness, digits="1234567890", actor=who,
                clock=clock_after(5),
            )  # fmt: skip
        bundle = await draws.run(database, "2026-12", actor=ZHAO, clock=clock_after(6))
    out = tmp_path / "draw.json"
    out.write_text(bundle_text(bundle))
    verify = ("draw", "verify", str(out), "--tsa-certificate", str(root))
    seen = await asyncio.to_thread(run_command, *verify)
    assert seen.returncode == 0, seen.stdout
    assert "holds  time stamp" in seen.stdout
    assert "CN=Test TSA" in seen.stdout
    bare = run_command("draw", "verify", str(out))
    assert bare.returncode == 0
    assert "was not verified" in bare.stdout
    told = json.loads(out.read_text())
    for change, named in (
        ({"timestamp": ""}, "holds none"),
        ({"timestamp": "AAAA"}, "no answer of a time-stamp"),
        ({"list_text": told["list_text"].replace("tier green", "tier red", 1)}, "another text"),
        ({"throws": [t | {"at": "2020-01-01T00:00:00Z"} for t in told["throws"]]}, "not before"),
    ):  # fmt: skip
        out.write_text(json.dumps(told | change))
        seen = run_command(*verify)
        assert seen.returncode == 1
        assert named in seen.stdout, seen.stdout
