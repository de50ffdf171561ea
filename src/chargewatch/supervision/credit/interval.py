"""The interval of a rate from a sample, in decimal arithmetic that is the same everywhere."""

from __future__ import annotations

from decimal import Context, Decimal
from fractions import Fraction

from chargewatch.supervision.credit.rules import CreditError

_EXACT = Context(prec=40)
_TAIL = Decimal("0.025")
_STEPS = 50
_MOST_BAD = 100_000


def _at_most(bad: int, count: int, share: Decimal) -> Decimal:
    """Return the probability of at most `bad` of `count`, each with probability `share`."""
    ctx = _EXACT
    if share <= 0:
        return Decimal(1)
    if share >= 1:
        return Decimal(int(bad >= count))
    odds = ctx.divide(share, ctx.subtract(Decimal(1), share))
    term = ctx.power(ctx.subtract(Decimal(1), share), Decimal(count))
    total = term
    for k in range(bad):
        term = ctx.divide(
            ctx.multiply(ctx.multiply(term, odds), Decimal(count - k)), Decimal(k + 1)
        )
        total = ctx.add(total, term)
    return total


def _solve(bad: int, count: int, wanted: Decimal) -> Decimal:
    """Return the share at which at most `bad` of `count` have a probability of `wanted`."""
    low, high = Decimal(0), Decimal(1)
    for _ in range(_STEPS):
        middle = _EXACT.divide(_EXACT.add(low, high), Decimal(2))
        if _at_most(bad, count, middle) > wanted:
            low = middle
        else:
            high = middle
    return low


def exact_interval(bad: Fraction, count: Fraction) -> tuple[Fraction, Fraction]:
    """Return the 95 % interval of the share that `bad` of `count` stand for.

    It never covers less than it says, however few there are.
    Source: Clopper, Pearson, Biometrika 26 (1934).
    Raises: CreditError for what is no whole number, or too many to be a sample's bad ones.
    """
    k, n = int(bad), int(count)
    if k != bad or n != count or not 0 <= k <= n or n == 0:
        raise CreditError(f"{bad} of {count} are no numbers of a sample")
    if k > _MOST_BAD:
        raise CreditError(f"{k} bad ones are too many for an interval")
    low = Decimal(0) if k == 0 else _solve(k - 1, n, 1 - _TAIL)
    high = Decimal(1) if k == n else _solve(k, n, _TAIL)
    return Fraction(low), Fraction(high)
