"""Merkle trees of RFC 6962, section 2: SHA-256, leaves and nodes apart by their first byte.

A root tells that nothing under it changed, an inclusion proof that an entry is in a tree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from chargewatch.errors import ChargewatchError

EMPTY = hashlib.sha256(b"").digest()
HASH_SIZE = 32


class LogError(ChargewatchError):
    """A log, checkpoint or proof is not one, or does not verify."""


class EntryError(LogError):
    """An entry of a log is not the one that was published."""

    def __init__(self, entry: int, message: str) -> None:
        super().__init__(message)
        self.entry = entry


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf with this content."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node above two others."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """Return the largest power of two below the size."""
    return 1 << ((size - 1).bit_length() - 1)


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes; that of no leaf is the hash of nothing."""
    if not leaves:
        return EMPTY
    level = list(leaves)
    while len(level) > 1:
        above = [node_hash(level[k], level[k + 1]) for k in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            above.append(level[-1])
        level = above
    return level[0]


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the hashes that lead from a leaf to the root, its sibling first.

    Raises: LogError for an index that is not in the tree.
    """
    if not 0 <= index < len(leaves):
        raise LogError(f"entry {index} is not in a log of {len(leaves)} entries")
    path: list[bytes] = []
    low, high = 0, len(leaves)
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(tree_hash(leaves[middle:high]))
            high = middle
        else:
            path.append(tree_hash(leaves[low:middle]))
            low = middle
    return path[::-1]


def root_by_inclusion(leaf: bytes, *, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """Return the root that an inclusion proof leads to. Source: RFC 9162, section 2.1.3.2.

    Raises: LogError for a proof whose length does not fit the index and the size.
    """
    if not 0 <= index < size:
        raise LogError(f"entry {index} is not in a log of {size} entries")
    fn, sn, root = index, size - 1, leaf
    for step in proof:
        if sn == 0:
            raise LogError("the inclusion proof is too long for its index and size")
        if fn & 1 or fn == sn:
            root = node_hash(step, root)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            root = node_hash(root, step)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise LogError("the inclusion proof is too short for its index and size")
    return root


class GrowingTree:
    """The root of a log that grows, in memory that its logarithm bounds."""

    def __init__(self) -> None:
        self.size = 0
        self._whole: list[bytes] = []  # roots of whole subtrees, the largest first

    def add(self, leaf: bytes) -> None:
        """Add a leaf's hash."""
        size, node = self.size, leaf
        while size & 1:
            node = node_hash(self._whole.pop(), node)
            size >>= 1
        self._whole.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Return the root over the leaves so far."""
        if not self._whole:
            return EMPTY
        root = self._whole[-1]
        for node in reversed(self._whole[:-1]):
            root = node_hash(node, root)
        return root
