"""Tickets: a number for every name, that all can compute and nobody can choose.

ticket(name) = (SHA-256("domain|draw|seed|name") + 1/2) / 2^256, a fraction between 0 and 1. Each
domain has tickets of its own, so that which piles are drawn says nothing of who inspects them. A
person checks one by

    printf '%s' 'pile-weighted|2026-12|SEED|OP1-S1-01' | sha256sum

A pile's place in the weighted order is by -ln(ticket) / weight, the smallest first: that is a draw
without replacement in which the next one is always drawn in proportion to the weights of those that
are left, and a larger draw holds the smaller one. Source: Efraimidis, Spirakis, Inf. Process. Lett.
97 (2006); tickets from a published seed: Rivest, consistent_sampler (2018), as used in
risk-limiting audits of elections.
"""

from __future__ import annotations

import hashlib
import math
from decimal import Context, Decimal
from enum import StrEnum

import numpy as np

DIGITS = 50
_SCALE = 1 << 256
_CONTEXT = Context(prec=DIGITS)


class Domain(StrEnum):
    """What a ticket is for."""

    WEIGHTED = "pile-weighted"
    UNIFORM = "pile-uniform"
    INSPECTOR = "inspector"


def ticket(domain: Domain, *, draw: str, seed: str, name: str) -> str:
    """Return a ticket as 64 hexadecimal digits."""
    return hashlib.sha256(f"{domain}|{draw}|{seed}|{name}".encode()).hexdigest()


def exact_key(number: str, weight: Decimal) -> Decimal:
    """Return -ln(ticket) / weight to 50 digits; infinite for a weight of 0."""
    if weight <= 0:
        return Decimal("Infinity")
    fraction = _CONTEXT.divide(Decimal(2 * int(number, 16) + 1), Decimal(2 * _SCALE))
    return _CONTEXT.divide(-_CONTEXT.ln(fraction), weight)


def uniform_order(name: str, number: str) -> tuple[int, str]:
    """Return what sorts names as a uniform part takes them: by -ln(ticket), then by name."""
    return -int(number, 16), name


def _rough_key(number: str, weight: float) -> float:
    """Return about the same as `exact_key`, to 12 digits: log1p keeps those close to 1 apart."""
    if weight <= 0:
        return math.inf
    value = int(number, 16)
    if value >> 255:
        return -math.log1p(-(2 * (_SCALE - value) - 1) / (2 * _SCALE)) / weight
    return -math.log((2 * value + 1) / (2 * _SCALE)) / weight


ROUGHLY = 1e-9
"""Rough keys closer than this, relative, are compared by their exact ones."""


def first_by_weight(
    names: list[str], weights: list[Decimal], tickets: list[str], *, count: int
) -> list[tuple[str, Decimal]]:
    """Return the ``count`` first names of the weighted order with their exact keys, in order.

    Names with a weight of 0 are never drawn. The order is exact, ties (of equal tickets) go by
    name; rough keys only say which names can be among the first at all.
    """
    rough = np.array(
        [_rough_key(t, float(w)) for t, w in zip(tickets, weights, strict=True)], dtype=np.float64
    )
    able = int(np.isfinite(rough).sum())
    count = min(count, able)
    if count == 0:
        return []
    edge = float(np.partition(rough, count - 1)[count - 1])
    near = np.flatnonzero(rough <= edge * (1 + ROUGHLY))
    exact = sorted((exact_key(tickets[k], weights[k]), names[k]) for k in near.tolist())
    return [(name, key) for key, name in exact[:count]]
