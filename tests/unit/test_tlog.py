"""Tamper-evident logs: trees, notes, proofs and tiles, against vectors and checkers of others."""

from __future__ import annotations

import base64
import hashlib
import random
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from chargewatch.errors import InputFileError
from chargewatch.tlog.merkle import (
    EMPTY,
    GrowingTree,
    LogError,
    inclusion_proof,
    leaf_hash,
    root_by_inclusion,
    tree_hash,
)
from chargewatch.tlog.note import (
    Checkpoint,
    Ed25519Signer,
    Mldsa44Signer,
    Note,
    read_checkpoint,
    read_note,
    read_verifier_key,
    sign,
    verified_by,
)
from chargewatch.tlog.proof import prove, read_proof, verify_proof
from chargewatch.tlog.tiles import number_path, read_tiles, tiles_of, write_tiles

# The eight leaves and roots that the Certificate Transparency project tests its trees with.
LEAVES = [
    bytes.fromhex(one)
    for one in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# The example of c2sp.org/signed-note.
VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
NOTE = (
    "This is an example message.\n\n\N{EM DASH} example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)


def recursive_root(leaves: list[bytes]) -> bytes:
    """The definition of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(
        b"\x01" + recursive_root(leaves[:k]) + recursive_root(leaves[k:])
    ).digest()


def test_roots_are_those_of_certificate_transparency() -> None:
    hashes = [leaf_hash(one) for one in LEAVES]
    assert [tree_hash(hashes[: k + 1]).hex() for k in range(8)] == ROOTS
    assert tree_hash([]) == EMPTY
    many = [leaf_hash(bytes([k])) for k in range(100)]
    assert all(tree_hash(many[:k]) == recursive_root(many[:k]) for k in range(100))
    growing = GrowingTree()
    for k in range(100):
        assert (growing.size, growing.root()) == (k, tree_hash(many[:k]))
        growing.add(many[k])


def test_every_inclusion_verifies_and_no_other_leaf_index_or_size_does() -> None:
    hashes = [leaf_hash(bytes([k])) for k in range(33)]
    for size in range(1, 34):
        root = tree_hash(hashes[:size])
        for index in range(size):
            proof = inclusion_proof(hashes[:size], index)
            assert root_by_inclusion(hashes[index], index=index, size=size, proof=proof) == root
            assert root_by_inclusion(leaf_hash(b"x"), index=index, size=size, proof=proof) != root
            for changed in ([*proof, EMPTY], proof[:-1]):
                if changed != proof:
                    with pytest.raises(LogError):
                        root_by_inclusion(hashes[index], index=index, size=size, proof=changed)


def test_the_example_of_the_standard_verifies_and_not_when_changed() -> None:
    key = read_verifier_key(VKEY)
    assert key.text() == VKEY
    note = read_note(NOTE)
    assert note.whole() == NOTE
    assert verified_by(note, [key]) == [key]
    with pytest.raises(LogError, match="does not verify"):
        verified_by(read_note(NOTE.replace("an example", "no example")), [key])
    with pytest.raises(LogError, match="none of the keys"):
        verified_by(note, [])


def test_openssl_verifies_what_is_signed_here(tmp_path: Path) -> None:
    signer = Ed25519Signer("city.example/audit", Ed25519PrivateKey.generate())
    note = sign(Checkpoint(origin="city.example/audit", size=7, root=EMPTY), [signer], at_s=1)
    der = bytes.fromhex("302a300506032b6570032100") + signer.verifier().public
    (tmp_path / "key.der").write_bytes(der)
    (tmp_path / "text").write_text(note.text)
    (tmp_path / "signature").write_bytes(note.signatures[0].content)
    said = subprocess.run(
        ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "key.der",
         "-rawin", "-in", "text", "-sigfile", "signature"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr


def test_a_checkpoint_bears_the_signatures_of_log_and_witnesses() -> None:
    log = Ed25519Signer("city.example/audit", Ed25519PrivateKey.generate())
    lasting = Mldsa44Signer("city.example/audit", MLDSA44PrivateKey.generate())
    witness = Mldsa44Signer("province.example/witness", MLDSA44PrivateKey.generate())
    stranger = Ed25519Signer("stranger", Ed25519PrivateKey.generate())
    checkpoint = Checkpoint(origin="city.example/audit", size=3, root=tree_hash([EMPTY] * 3))
    note = sign(checkpoint, [log, lasting, witness, stranger], at_s=1_790_000_000)
    again = read_note(note.whole())
    assert read_checkpoint(again.text) == checkpoint
    keys = [read_verifier_key(one.verifier().text()) for one in (log, lasting, witness)]
    assert verified_by(again, keys) == keys
    for old, new in (("\n3\n", "\n4\n"), ("city.example/audit\n3", "city.example/other\n3")):
        for key in keys:
            with pytest.raises(LogError, match="does not verify"):
                verified_by(read_note(note.whole().replace(old, new, 1)), [key])


@pytest.mark.parametrize(
    "text",
    [
        "a\n", "a\n1\n", "a\n01\nAAAA\n", "a\n-1\nAAAA\n", "a\n1\nAAAA\n", "a\n1\n!\n",
        "\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(LogError):
        read_checkpoint(text)


@pytest.mark.parametrize(
    "whole",
    ["", "text\n", "text\n\n", "text\n\nname AAAAAAAA\n", "text\n\n\N{EM DASH} na+me AAAAAAAA\n",
     "text\n\n\N{EM DASH} name AAAA\n", "te\tx\n\n\N{EM DASH} name AAAAAAAA\n",
     "text\n\n\N{EM DASH} name AAAAAAAA"],
)  # fmt: skip
def test_what_is_no_signed_note_is_refused(whole: str) -> None:
    with pytest.raises(LogError):
        read_note(whole)


def test_a_proof_file_verifies_offline_and_no_other_entry_does() -> None:
    signer = Ed25519Signer("city.example/audit", Ed25519PrivateKey.generate())
    entries = [f"row {k}".encode() for k in range(300)]
    hashes = [leaf_hash(one) for one in entries]
    note = sign(
        Checkpoint(origin="city.example/audit", size=257, root=tree_hash(hashes[:257])),
        [signer], at_s=1,
    )  # fmt: skip
    keys = [signer.verifier()]
    proof = prove(hashes, 41, note, extra=b"seen")
    again = read_proof(proof.text())
    assert again == proof
    checkpoint, signed = verify_proof(again, entries[41], keys, origin="city.example/audit")
    assert (checkpoint.size, signed) == (257, keys)
    with pytest.raises(LogError, match="is not number 41"):
        verify_proof(again, entries[42], keys, origin="city.example/audit")
    with pytest.raises(LogError, match="of the log"):
        verify_proof(again, entries[41], keys, origin="city.example/other")
    with pytest.raises(LogError, match="only 300"):
        prove(hashes, 1, sign(Checkpoint(origin="o", size=301, root=EMPTY), [signer], at_s=1))
    lines = proof.text().split("\n")
    for wrong in (
        "", "\n\n", proof.text().replace("proof@v1", "proof@v2"),
        proof.text().replace("index 41", "index x"), "\n".join(lines[:3] + lines[4:]),
        proof.text().replace(lines[4], base64.b64encode(b"short").decode()),
    ):  # fmt: skip
        with pytest.raises(LogError):
            verify_proof(read_proof(wrong), entries[41], keys, origin="city.example/audit")


def test_tiles_have_the_widths_of_the_standards_own_example() -> None:
    widths: dict[str, list[int]] = {}
    for name, content in tiles_of([b""] * 70_000):
        kind = name.split("/")[1]
        widths.setdefault(kind, []).append(len(content) // (2 if kind == "entries" else 32))
    assert widths["0"] == [256] * 273 + [112]
    assert widths["1"] == [256, 17]
    assert widths["2"] == [1]
    assert widths["entries"] == [256] * 273 + [112]
    assert number_path(1234067) == "x001/x234/067"
    assert number_path(7) == "007"


def test_a_log_on_a_stick_is_read_back_and_one_changed_byte_is_named(tmp_path: Path) -> None:
    rng = random.Random(3)
    signer = Ed25519Signer("city.example/audit", Ed25519PrivateKey.generate())
    entries = [rng.randbytes(rng.randrange(400)) for _ in range(700)]

    def signed(count: int) -> Note:
        root = tree_hash([leaf_hash(one) for one in entries[:count]])
        checkpoint = Checkpoint(origin="city.example/audit", size=count, root=root)
        return sign(checkpoint, [signer], at_s=1)

    write_tiles(tmp_path, entries[:300], signed(300))
    assert read_tiles(tmp_path)[1] == entries[:300]
    assert write_tiles(tmp_path, entries, signed(700)) > 0
    assert write_tiles(tmp_path, entries, signed(700)) == 0
    note, found = read_tiles(tmp_path)
    assert found == entries
    assert verified_by(note, [signer.verifier()])

    with pytest.raises(LogError, match="was published with another content"):
        changed = [*entries[:10], b"forged", *entries[11:]]
        root = tree_hash([leaf_hash(one) for one in changed])
        forged = Checkpoint(origin="city.example/audit", size=700, root=root)
        write_tiles(tmp_path, changed, sign(forged, [signer], at_s=1))
    bundle = tmp_path / "tile/entries/001"
    content = bytearray(bundle.read_bytes())
    at = 0
    for _ in range(44):
        at += 2 + int.from_bytes(content[at : at + 2], "big")
    length = int.from_bytes(content[at : at + 2], "big")
    assert length > 0
    content[at + 2] ^= 1
    bundle.write_bytes(content)
    with pytest.raises(LogError, match="entry 300 "):
        read_tiles(tmp_path)
    bundle.write_bytes(content[:-3])
    with pytest.raises(LogError):
        read_tiles(tmp_path)
    bundle.unlink()
    with pytest.raises(InputFileError, match="can't be read"):
        read_tiles(tmp_path)
