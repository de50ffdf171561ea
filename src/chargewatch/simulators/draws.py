"""Random numbers addressed by what they are for, so that a fault changes no other draw.

Every number is a pure function of (seed, purpose, indices): no generator is advanced, hence
adding a fault, a station or a day leaves all other numbers as they were (common random numbers),
and a block can be computed alone, in any order and in arrays.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from chargewatch.domain.arrays import Floats

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the SplitMix64 finaliser of x (Steele, Lea, Flood, OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class Draws:
    """Addressed random numbers of one seed."""

    seed: int

    def bits(self, purpose: str, *indices: ArrayLike) -> NDArray[np.uint64]:
        """Return 64 random bits for each combination of the broadcast indices."""
        start = (self.seed * 0x9E3779B97F4A7C15 + zlib.crc32(purpose.encode())) % 2**64
        h = _mix(np.array([start], dtype=np.uint64))
        for index in indices:
            key = np.atleast_1d(np.asarray(index)).astype(np.int64).view(np.uint64)
            h = _mix((h ^ _mix(key + _GOLDEN)) + _GOLDEN)
        return h

    def uniform(self, purpose: str, *indices: ArrayLike) -> Floats:
        """Return numbers uniform on (0, 1)."""
        high = (self.bits(purpose, *indices) >> np.uint64(11)).astype(np.float64)
        return np.asarray((high + 0.5) * 2.0**-53)

    def normal(self, purpose: str, *indices: ArrayLike) -> Floats:
        """Return standard normal numbers."""
        return np.asarray(ndtri(self.uniform(purpose, *indices)))

    def choice(self, purpose: str, size: int, *indices: ArrayLike) -> NDArray[np.int64]:
        """Return whole numbers uniform on 0 .. size - 1."""
        return np.asarray((self.uniform(purpose, *indices) * size).astype(np.int64))
