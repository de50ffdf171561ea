"""A draw: from a frozen list, a seed and a number to piles with their inspectors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from chargewatch.draws.frame import DrawError, Frame, Pile
from chargewatch.draws.tickets import Domain, first_by_weight, ticket

LEAST_DIGITS_A_WITNESS = 10
"""Ten-sided dice: those of two witnesses are 66 bits, more than anyone can try."""


@dataclass(frozen=True, kw_only=True)
class Throw:
    """The dice of one witness, in the order in which they lay."""

    witness: str
    digits: str


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A pile that was drawn."""

    rank: int  # from 1
    pile: Pile
    uniform: bool  # in the uniform part, whether or not its weight would have drawn it too
    ticket: str  # of the part that it came by
    key: str  # -ln(ticket) / weight, 12 digits; empty in the uniform part
    inspectors: tuple[str, ...]


def seed_of(throws: tuple[Throw, ...], beacon: str = "") -> str:
    """Return the seed: the witnesses' digits one behind the other, and the beacon's value if any.

    Each witness throws at least ten dice, so that none of them alone decides.

    Raises: DrawError.
    """
    if len({one.witness for one in throws}) < 2:
        raise DrawError("two different witnesses must throw: one alone could choose the seed")
    for one in throws:
        if not one.digits.isascii() or not one.digits.isdigit():
            raise DrawError(f"the throw of {one.witness} must be digits only, it is {one.digits!r}")
        if len(one.digits) < LEAST_DIGITS_A_WITNESS:
            raise DrawError(
                f"{one.witness} threw {len(one.digits)} dice: at least {LEAST_DIGITS_A_WITNESS}"
            )
    if any(c.isspace() or c == "|" or not c.isprintable() for c in beacon):
        raise DrawError("the beacon's value must be one word without `|`")
    digits = "".join(one.digits for one in throws)
    return f"{digits}|{beacon}" if beacon else digits


def drawn(frame: Frame, *, seed: str, size: int) -> list[Drawn]:
    """Return the piles drawn, in their order.

    The uniform share comes first in each step: of k piles the ceil(share x k) first ones of the
    uniform order are in, whatever their weights, and the rest comes from the weighted order without
    them. So a larger draw holds every smaller one, and the uniform part is a simple random sample
    of the list: its failure rate is unbiased.

    Raises: DrawError when so many can't be drawn, or an inspector can't be found.
    """
    able = sum(one.weight > 0 for one in frame.piles)
    most = len(frame.piles) if frame.uniform == 1 else able
    if not 1 <= size <= most:
        raise DrawError(f"{size} piles can't be drawn: 1 to {most} of the list can")
    names = [one.name for one in frame.piles]
    pile = {one.name: one for one in frame.piles}
    share = [ticket(Domain.UNIFORM, draw=frame.draw, seed=seed, name=name) for name in names]
    fair = [ticket(Domain.WEIGHTED, draw=frame.draw, seed=seed, name=name) for name in names]
    parts = math.ceil(frame.uniform * size)
    uniform = first_by_weight(names, [Decimal(1)] * len(names), share, count=parts)
    weighted = first_by_weight(names, [one.weight for one in frame.piles], fair, count=size)
    by_share, by_weight = dict(zip(names, share, strict=True)), dict(zip(names, fair, strict=True))
    order = _joined([n for n, _ in uniform], [n for n, _ in weighted], frame.uniform, size=size)
    key = {name: f"{value:.12g}" for name, value in weighted}
    in_uniform = {name for name, _ in uniform}
    crews = _crews(frame, [pile[name] for name in order], seed=seed)
    return [
        Drawn(
            rank=rank,
            pile=pile[name],
            uniform=name in in_uniform,
            ticket=by_share[name] if name in in_uniform else by_weight[name],
            key="" if name in in_uniform else key[name],
            inspectors=crew,
        )
        for rank, (name, crew) in enumerate(zip(order, crews, strict=True), start=1)
    ]


def _joined(uniform: list[str], weighted: list[str], share: Decimal, *, size: int) -> list[str]:
    """Return the names in the order in which growing draws take them in."""
    order: list[str] = []
    taken: set[str] = set()
    rest = iter(weighted)
    inside = 0
    while len(order) < size:
        # A name that its weight drew before stays; the uniform part then costs no place.
        while inside < math.ceil(share * (len(order) + 1)) and inside < len(uniform):
            name = uniform[inside]
            inside += 1
            if name not in taken:
                break
        else:
            name = next(name for name in rest if name not in taken)
        taken.add(name)
        order.append(name)
    return order


def _crews(frame: Frame, piles: list[Pile], *, seed: str) -> list[tuple[str, ...]]:
    """Return the inspectors of each pile: of those not recused the ones with the fewest so far.

    Among equals the smallest ticket of "pile/inspector" decides.
    """
    load = {one.name: 0 for one in frame.inspectors}
    out = []
    for pile in piles:
        able = [one.name for one in frame.inspectors if pile.operator not in one.recused]
        if len(able) < frame.crew:
            raise DrawError(
                f"{pile.name} of {pile.operator} needs {frame.crew} inspectors, and only "
                f"{len(able)} are not recused: add inspectors to the list"
            )
        order = sorted(
            able,
            key=lambda name: (
                load[name],
                ticket(Domain.INSPECTOR, draw=frame.draw, seed=seed, name=f"{pile.name}/{name}"),
                name,
            ),
        )
        crew = tuple(order[: frame.crew])
        for name in crew:
            load[name] += 1
        out.append(crew)
    return out
