"""Merkle trees of RFC 6962, section 2: SHA-256, leaves and nodes apart by their first byte.

A hash tells that nothing before it changed; an inclusion proof that an entry is in a tree, a
consistency proof that a later tree only adds to an earlier one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from chargewatch.errors import ChargewatchError

EMPTY = hashlib.sha256(b"").digest()
HASH_SIZE = 32


class LogError(ChargewatchError):
    """A log, checkpoint or proof is not one, or does not verify."""


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


def consistency_proof(leaves: Sequence[bytes], earlier: int) -> list[bytes]:
    """Return the hashes that show that the tree of the first ``earlier`` leaves is in this one.

    Raises: LogError for an earlier size beyond the tree.
    """
    if not 0 <= earlier <= len(leaves):
        raise LogError(f"a log of {len(leaves)} entries had never {earlier}")
    if earlier in (0, len(leaves)):
        return []
    path: list[bytes] = []
    low, high, count, whole = 0, len(leaves), earlier, True
    while count < high - low:
        middle = low + _split(high - low)
        if count <= middle - low:
            path.append(tree_hash(leaves[middle:high]))
            high = middle
        else:
            path.append(tree_hash(leaves[low:middle]))
            count, low, whole = count - (middle - low), middle, False
    if not whole:
        path.append(tree_hash(leaves[low:high]))
    return path[::-1]


def verify_consistency(
    *, earlier: int, earlier_root: bytes, later: int, later_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check a consistency proof. Source: RFC 9162, section 2.1.4.2.

    Raises: LogError when the later log does not only add to the earlier one.
    """
    if earlier == 0:  # from nothing every log follows
        good = not proof and earlier_root == EMPTY
    elif earlier == later:
        good = not proof and earlier_root == later_root
    else:
        try:
            roots = _roots_by_consistency(earlier, later, earlier_root, list(proof))
        except LogError:
            good = False
        else:
            good = roots == (earlier_root, later_root)
    if not good:
        raise LogError(
            f"the log of {later} entries does not hold the {earlier} entries that were signed "
            f"before"
        )


def _roots_by_consistency(
    earlier: int, later: int, earlier_root: bytes, path: list[bytes]
) -> tuple[bytes, bytes]:
    """Return the roots of both trees that a consistency proof leads to."""
    if not 0 < earlier < later:
        raise LogError("a log does not shrink")
    if not earlier & (earlier - 1):
        path.insert(0, earlier_root)
    if not path:
        raise LogError("the consistency proof is empty")
    fn, sn = earlier - 1, later - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old = new = path[0]
    for step in path[1:]:
        if sn == 0:
            raise LogError("the consistency proof is too long")
        if fn & 1 or fn == sn:
            old, new = node_hash(step, old), node_hash(step, new)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            new = node_hash(new, step)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise LogError("the consistency proof is too short")
    return old, new
