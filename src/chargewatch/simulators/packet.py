"""One message of a simulated city on its way to the broker."""

from __future__ import annotations

from dataclasses import dataclass

from chargewatch.domain.arrays import Floats, Ints


@dataclass(frozen=True, slots=True)
class Packet:
    """One message to publish, when it is due (simulation time)."""

    due_s: float
    topic: str
    body: bytes
    kind: str
    station: int
    items: int  # distinct readings or sessions in it
    bill: tuple[Ints, Floats, Floats] | None = None  # connectors, energies and bills of sessions
