"""A city's messages in the order in which they are published, window after window."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.simulators.batteries import Batteries
from chargewatch.simulators.bills import Bills
from chargewatch.simulators.charging import Demand
from chargewatch.simulators.clocks import Clocks
from chargewatch.simulators.composer import Composer
from chargewatch.simulators.delivery import Delivery
from chargewatch.simulators.draws import Draws
from chargewatch.simulators.faults import Faults
from chargewatch.simulators.feeders import Feeders, grid_times
from chargewatch.simulators.layout import Layout
from chargewatch.simulators.metering import Block, EnergyLedger
from chargewatch.simulators.packet import Packet
from chargewatch.simulators.readings import Cadence, Registers, Sampler
from chargewatch.simulators.registry import operator_id
from chargewatch.simulators.wire_form import (
    dump,
    envelope,
    reference_texts,
    time_texts,
)

STATUS_S = 6 * 3600
"""How often a gateway tells its status, s."""
CHUNK_READINGS = 600_000
"""Readings that are in memory at a time, about."""
MESSAGE_ITEMS = 5_000


@dataclass
class Bookkeeping:
    """Independent bookkeeping of what was published, as arrays over connectors or counts."""

    messages: int = 0
    readings: int = 0
    reference_readings: int = 0
    sessions: int = 0
    session_wh: Floats = field(default_factory=lambda: np.zeros(0))
    billed_wh: Floats = field(default_factory=lambda: np.zeros(0))
    connector_sessions: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


class PacketStream:
    """Everything that runs in time: demand, registers, bills, messages.

    ``origin_s`` is the epoch time of local midnight at which the simulation's clock is 0.
    """

    def __init__(
        self,
        layout: Layout,
        draws: Draws,
        faults: Faults,
        *,
        parts: tuple[Demand, EnergyLedger],
        clocks: Clocks,
        batteries: Batteries,
        origin_s: float,
        end_s: float,
        electrical: bool,
    ) -> None:
        self.layout, self.draws, self.faults, self.origin_s = layout, draws, faults, origin_s
        self._demand, self.ledger = parts
        self.registers = Registers(layout, faults, end_s=end_s)
        self.sampler = Sampler(
            layout, draws, faults, ledger=self.ledger, registers=self.registers, end_s=end_s
        )
        self.clocks = clocks
        conflicts = faults.of_kind("conflict")
        self._conflicting_stations = {int(layout.connectors.station[i]) for i in conflicts}
        self._composer = Composer(
            layout,
            draws,
            clocks=clocks,
            electrical=electrical,
            faults=faults,
        )
        self.bills = Bills(
            layout,
            draws,
            faults,
            ledger=self.ledger,
            registers=self.registers,
            clocks=clocks,
            batteries=batteries,
        )
        self.feeders = Feeders(layout, draws, ledger=self.ledger)
        self._delivery = Delivery(layout, draws, faults, end_s=end_s)
        self._topics = [
            f"cw/v1/{operator_id(int(operator))}/{name}/"
            for name, operator in zip(layout.stations.name, layout.stations.operator, strict=True)
        ]
        self._session_delay_s = np.zeros(layout.stations.size)
        for k, fault in faults.of_kind("late_session").items():
            self._session_delay_s[k] = fault["delay_s"]
        self._waiting: list[tuple[float, int, Packet]] = []
        self._sequence: dict[tuple[int, str], int] = {}
        self._order = 0
        self._day = -1
        self._block: Block | None = None
        self.published = Bookkeeping(
            session_wh=np.zeros(layout.connectors.size),
            billed_wh=np.zeros(layout.connectors.size),
            connector_sessions=np.zeros(layout.connectors.size, dtype=np.int64),
        )

    def block(self, day: int) -> Block:
        """Return the block of a day; days come in order."""
        while self._day < day:
            self._day += 1
            self._block = self.ledger.block(self._demand.day(self._day), self._day)
            self.registers.enter_day(self.ledger, self._block, self._day)
        if self._block is None or self._day != day:
            raise ValueError("days come in order")
        return self._block

    def packets(self, cadence: Cadence, *, begin_s: float, end_s: float) -> Iterator[Packet]:
        """Yield the messages about begin_s <= t < end_s (simulation time), when they are due.

        ``end_s`` may be infinite; memory stays bounded by a chunk and the late messages. What is
        due more than an hour after ``end_s`` stays for the next call.
        """
        waiting = self._waiting
        low = begin_s
        while low < end_s:
            high = min(self.chunk_end(cadence, low), end_s)
            for packet in self._window(cadence, low, high):
                for due in self._delivery.deliver(packet):
                    self._order += 1
                    heapq.heappush(waiting, (due.due_s, self._order, due))
            while waiting and waiting[0][0] < high:
                yield self._count(heapq.heappop(waiting)[2])
            low = high
        while waiting and waiting[0][0] < end_s + 3600:
            yield self._count(heapq.heappop(waiting)[2])

    def chunk_end(self, cadence: Cadence, low: float) -> float:
        """Return the end of the next chunk: whole messages, within a day, of bounded size."""
        per_s = self.layout.connectors.size * (0.3 / cadence.charging_s + 1 / cadence.idle_s)
        windows = max(1, int(CHUNK_READINGS / per_s / cadence.message_s))
        high = (np.floor(low / cadence.message_s) + windows) * cadence.message_s
        midnight = (np.floor(low / DAY_S) + 1) * DAY_S
        return float(min(high, midnight))

    def _count(self, packet: Packet) -> Packet:
        self.published.messages += 1
        if packet.kind == "registers":
            self.published.readings += packet.items
        elif packet.kind == "reference":
            self.published.reference_readings += packet.items
        elif packet.kind == "sessions":
            self.published.sessions += packet.items
            if packet.bill is not None and packet.items:
                connector, energy, billed = packet.bill
                np.add.at(self.published.session_wh, connector, energy)
                np.add.at(self.published.billed_wh, connector, billed)
                np.add.at(self.published.connector_sessions, connector, 1)
        return packet

    def _window(self, cadence: Cadence, low: float, high: float) -> Iterator[Packet]:
        block = self.block(int(low // DAY_S))
        yield from self._status(low, high)
        yield from self._register_packets(block, cadence, low, high)
        yield from self._reference_packets(block, cadence, low, high)
        yield from self._session_packets(block, cadence, low, high)

    def _sent_s(self, station: Ints, window: Ints, cadence: Cadence) -> Floats:
        """Return when the message of a window leaves its station: a few seconds after its end."""
        spread = min(25.0, cadence.message_s / 3)
        delay = 1 + spread * self.draws.uniform("sending", station, window)
        return np.asarray(np.round((window + 1) * cadence.message_s + delay, 3))

    def _packet(self, kind: str, station: int, *, due_s: float, items: list[str]) -> Packet:
        sequence = self._next(kind, station)
        sent_at = self.clocks.text(station, due_s)
        key = "sessions" if kind == "sessions" else "readings"
        body = envelope(sequence, sent_at, key=key, items=items)
        return Packet(due_s, self._topics[station] + kind, body, kind, station, len(items))

    def _next(self, kind: str, station: int) -> int:
        sequence = self._sequence.get((station, kind), 0) + 1
        self._sequence[station, kind] = sequence
        return sequence

    def _status(self, low: float, high: float) -> Iterator[Packet]:
        """Yield a status of every station at each full six hours of a window."""
        stations = np.arange(self.layout.stations.size)
        for tick in range(math.ceil(low / STATUS_S), math.ceil(high / STATUS_S)):
            jitter = 80 * self.draws.normal("clock jitter", stations, tick)
            due = tick * STATUS_S + 0.5 + np.round(self.draws.uniform("status", stations) * 20, 3)
            for k in stations.tolist():
                document = {
                    "seq": self._next("status", k),
                    "sent_at": self.clocks.text(k, float(due[k])),
                    "online": True,
                    "clock_offset_ms": round(
                        float(jitter[k]) + 1000 * self.clocks.shift_of(k, float(due[k]))
                    ),
                    "backlog": 0,
                    "firmware": "2.4.1",
                }
                topic = self._topics[k] + "status"
                yield Packet(float(due[k]), topic, dump(document), "status", k, 0)

    def _register_packets(
        self, block: Block, cadence: Cadence, low: float, high: float
    ) -> Iterator[Packet]:
        readings = self.sampler.readings(block, cadence, begin_s=low, end_s=high)
        if not readings.size:
            return
        texts = self._composer.readings(block, readings)
        station = self.layout.connectors.station[readings.connector]
        window = np.floor(readings.t_s / cadence.message_s).astype(np.int64)
        edge = np.flatnonzero((np.diff(station) != 0) | (np.diff(window) != 0)) + 1
        bounds = [0, *edge.tolist(), readings.size]
        first = np.array(bounds[:-1])
        sent = self._sent_s(station[first], window[first], cadence).tolist()
        owner = station[first].tolist()
        for (begin, end), k, due in zip(pairwise(bounds), owner, sent, strict=True):
            for cut in range(begin, end, MESSAGE_ITEMS):
                part = texts[cut : min(cut + MESSAGE_ITEMS, end)]
                yield self._packet("registers", k, due_s=due, items=part)
            if self._conflicting_stations and k in self._conflicting_stations:
                again = self._composer.conflicting(readings, texts, (begin, end))
                if again:
                    packet = self._packet("registers", k, due_s=due + 0.2, items=again)
                    yield replace(packet, items=0)

    def _reference_packets(
        self, block: Block, cadence: Cadence, low: float, high: float
    ) -> Iterator[Packet]:
        times = grid_times(low, high, step_s=cadence.reference_s)
        meters = self.layout.meters
        if not times.size or not meters.size:
            return
        registers, _ = self.feeders.registers(block, times)
        group = (times // cadence.reference_message_s).astype(np.int64)
        order = np.argsort(meters.station, kind="stable")
        owners, starts = np.unique(meters.station[order], return_index=True)
        bounds = [*starts.tolist(), order.size]
        for g in np.unique(group).tolist():
            column = np.flatnonzero(group == g)
            last = np.full(owners.size, int(times[column[-1]] // cadence.message_s))
            sent = (self._sent_s(owners, last, cadence) + 0.3).tolist()
            plain = time_texts(self.origin_s + times[column])
            for k, (begin, end), due in zip(owners.tolist(), pairwise(bounds), sent, strict=True):
                is_plain = self.clocks.is_plain(k)
                at = plain if is_plain else self.clocks.texts(np.array([k]), times[column])
                items = [
                    item
                    for j in order[begin:end].tolist()
                    for item in reference_texts(meters.name[j], at, registers[j, column])
                ]
                yield self._packet("reference", k, due_s=due, items=items)

    def _session_packets(
        self, block: Block, cadence: Cadence, low: float, high: float
    ) -> Iterator[Packet]:
        s = block.sessions
        ended = (s.vehicle >= 0) & (s.end_s >= low) & (s.end_s < high)
        hidden = self.sampler.hidden(block)
        for i in s.connector[ended & hidden].tolist():
            self.faults.strike("withheld", i)
        ended &= ~hidden & (s.end_s < self.sampler.silent_from[s.connector])
        rows = np.flatnonzero(ended)
        if not rows.size:
            return
        station = self.layout.connectors.station[s.connector[rows]]
        rows = rows[np.lexsort((s.connector[rows], s.end_s[rows], station))]
        station = self.layout.connectors.station[s.connector[rows]]
        window = np.floor(s.end_s[rows] / cadence.message_s).astype(np.int64)
        finished = self.bills.finished(block, rows)
        told = self.bills.told(block, finished)
        energy = finished.metered_wh
        edge = np.flatnonzero((np.diff(station) != 0) | (np.diff(window) != 0)) + 1
        bounds = [0, *edge.tolist(), rows.size]
        first = np.array(bounds[:-1])
        sent = self._sent_s(station[first], window[first], cadence) + 0.5
        sent = (sent + self._session_delay_s[station[first]]).tolist()
        owner = station[first].tolist()
        for (begin, end), k, due in zip(pairwise(bounds), owner, sent, strict=True):
            items = [dump(session).decode() for session in told[begin:end]]
            packet = self._packet("sessions", k, due_s=due, items=items)
            part = slice(begin, end)
            bill = (s.connector[rows[part]], energy[part], finished.billed_wh[part])
            yield replace(packet, bill=bill)
