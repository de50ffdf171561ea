"""What happens to messages on their way: lost, doubled, late, out of order, a silent gateway."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from chargewatch.domain.times import DAY_S
from chargewatch.simulators.draws import Draws
from chargewatch.simulators.faults import Fault, Faults
from chargewatch.simulators.layout import Layout
from chargewatch.simulators.packet import Packet

KINDS = ("registers", "reference", "sessions", "status")


class Delivery:
    """Applies the faults of messages, one station at a time."""

    def __init__(self, layout: Layout, draws: Draws, faults: Faults, *, end_s: float) -> None:
        self._draws = draws
        self._end_s = end_s
        self._all_faults = faults
        self._faults: dict[int, list[Fault]] = {
            k: found for k, found in faults.of_station.items() if k < layout.stations.size
        }
        self._count: dict[tuple[int, str], int] = {}

    def deliver(self, packet: Packet) -> Iterator[Packet]:
        """Yield the packet as often and when it is really published."""
        found = self._faults.get(packet.station)
        if not found:
            yield packet
            return
        key = (packet.station, packet.kind)
        number = self._count[key] = self._count.get(key, 0) + 1
        u = float(
            self._draws.uniform("delivery", packet.station, KINDS.index(packet.kind), number)[0]
        )
        copies = [packet]
        for fault in found:
            copies = [out for copy in copies for out in self._apply(fault, copy, u)]
        yield from copies

    def _apply(self, fault: Fault, packet: Packet, u: float) -> list[Packet]:
        parameters = fault.parameters
        begin_s = self._end_s - parameters.get("begin_days", 0.0) * DAY_S
        match fault.kind.name:
            case "missing" if packet.kind != "status" and u < parameters["share"]:
                self._all_faults.strike("missing", packet.station)
                return []
            case "duplicate" if u < parameters["share"]:
                return [packet, replace(packet, due_s=packet.due_s + 5.0, items=0)]
            case "reordered" if packet.kind != "status" and u < parameters["share"]:
                # All is delivered by the end, so that late is not the same as lost.
                delay = parameters["delay_s"] * u / parameters["share"]
                latest = max(packet.due_s, self._end_s)
                return [replace(packet, due_s=min(packet.due_s + delay, latest))]
            case "late":
                back_s = begin_s + parameters["length_days"] * DAY_S
                if begin_s <= packet.due_s < back_s:
                    return [replace(packet, due_s=back_s)]
            case "constant_delay":
                return [replace(packet, due_s=packet.due_s + parameters["delay_s"])]
            case "offline" if packet.due_s >= begin_s:
                return []
        return [packet]
