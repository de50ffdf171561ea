"""`chargewatch gateway` over TLS: the certificate authority is checked, and named when it fails."""

from __future__ import annotations

import datetime
import ipaddress
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chargewatch.local.broker import mosquitto_program
from chargewatch.local.processes import free_port, port_answers, temporary_folder


def write_certificate(folder: Path, name: str) -> None:
    """Write a certificate of its own authority for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


@pytest.fixture
def tls_broker() -> Iterator[tuple[str, Path]]:
    """A Mosquitto with a certificate: its address and the folder of the certificates."""
    port = free_port()
    with temporary_folder("chargewatch-tls-") as folder:
        write_certificate(folder, "broker")
        write_certificate(folder, "other")
        configuration = folder / "mosquitto.conf"
        configuration.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\n"
            f"certfile {folder}/broker.pem\nkeyfile {folder}/broker.key\n"
            # Started by root it would become a user who can't read the key.
            + (f"user {os.environ.get('USER', 'root')}\n" if os.geteuid() == 0 else "")
        )
        process = subprocess.Popen(
            [str(mosquitto_program()), "-c", str(configuration)], stderr=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 20
            while not port_answers(port) and time.monotonic() < deadline:
                time.sleep(0.05)
            yield f"mqtts://127.0.0.1:{port}", folder
        finally:
            process.terminate()
            process.wait(10)


def logged(url: str, folder: Path, authority: str, words: str) -> str:
    """Run the gateway until its log holds some words; return the log."""
    named = ["--operator", "OP", "--station", "ST", "--spool", str(folder / "spool")]
    log = folder / f"{authority}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "chargewatch", "gateway", *named],
            env=os.environ
            | {"CHARGEWATCH_MQTT_URL": url, "CHARGEWATCH_MQTT_CA_FILE": str(folder / authority)},
            # A pipe that stays open: the gateway goes on.
            stdin=subprocess.PIPE,
            stderr=file,
        )
    deadline = time.monotonic() + 30
    while words not in log.read_text() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=20)
    return log.read_text()


def test_a_gateway_speaks_tls_and_checks_the_authority(tls_broker: tuple[str, Path]) -> None:
    for authority, words in (
        ("broker.pem", "broker_connected"),
        ("other.pem", "CERTIFICATE_VERIFY_FAILED"),
        ("nowhere.pem", "nowhere.pem: can't be read"),
    ):
        log = logged(*tls_broker, authority, words)
        assert words in log
        assert ("broker_connected" in log) is (authority == "broker.pem")
