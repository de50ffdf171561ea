"""A city's messages in the order in which they are published, window after window."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargewatch.simulators.bills import Bills, session_name
from chargewatch.simulators.charging import DAY_S, Demand
from chargewatch.simulators.delivery import Delivery
from chargewatch.simulators.draws import Draws, Floats
from chargewatch.simulators.faults import Faults
from chargewatch.simulators.feeders import Feeders, grid_times
from chargewatch.simulators.layout import Layout
from chargewatch.simulators.metering import Block, Ledger
from chargewatch.simulators.readings import CONTEXTS, Cadence, Readings, Registers, Sampler
from chargewatch.simulators.registry import operator_id
from chargewatch.simulators.wire_form import dump, numbers, time_texts

Ints = NDArray[np.int64]

CHUNK_READINGS = 1_500_000
"""Readings that are in memory at a time, about."""
MESSAGE_ITEMS = 5_000


@dataclass(order=True, slots=True)
class Packet:
    """One message to publish; ordered by when it is due."""

    due_s: float
    order: int
    topic: str = field(compare=False)
    body: bytes = field(compare=False)
    kind: str = field(compare=False)
    station: int = field(compare=False)
    items: int = field(compare=False)  # distinct readings or sessions in it


@dataclass
class Published:
    """Independent bookkeeping of what was published, as arrays over connectors or counts."""

    messages: int = 0
    readings: int = 0
    reference_readings: int = 0
    sessions: int = 0
    session_wh: Floats = field(default_factory=lambda: np.zeros(0))
    billed_wh: Floats = field(default_factory=lambda: np.zeros(0))
    connector_sessions: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


class Stream:
    """Everything that runs in time: demand, registers, bills, messages.

    ``origin_s`` is the epoch time of local midnight at which the simulation's clock is 0.
    """

    def __init__(
        self,
        layout: Layout,
        draws: Draws,
        faults: Faults,
        *,
        parts: tuple[Demand, Ledger],
        origin_s: float,
        end_s: float,
        electrical: bool,
    ) -> None:
        self.layout, self.draws, self.faults, self.origin_s = layout, draws, faults, origin_s
        self._demand, self.ledger = parts
        self._electrical = electrical
        self.registers = Registers(layout, faults, end_s=end_s)
        self.sampler = Sampler(
            layout, draws, faults, ledger=self.ledger, registers=self.registers, end_s=end_s
        )
        self.clock_s = np.zeros(layout.stations.size)
        for k, fault in faults.of_kind("clock").items():
            self.clock_s[k] = fault["offset_s"]
        self.bills = Bills(
            layout,
            draws,
            faults,
            ledger=self.ledger,
            registers=self.registers,
            time_text=self._texts,
        )
        self.feeders = Feeders(layout, draws, ledger=self.ledger)
        self._delivery = Delivery(layout, draws, faults, end_s=end_s)
        self._conflicts = faults.of_kind("conflict")
        self._silent_from = self.sampler.silent_from
        self._sequence: dict[tuple[int, str], int] = {}
        self._order = 0
        self._day = -1
        self._block: Block | None = None
        self._shift_s = 0.0
        self.published = Published(
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

        ``end_s`` may be infinite; memory stays bounded by a chunk and the late messages.
        """
        waiting: list[Packet] = []
        low = begin_s
        while low < end_s:
            high = min(self.chunk_end(cadence, low), end_s)
            for packet in self._window(cadence, low, high):
                for due in self._delivery.deliver(packet):
                    heapq.heappush(waiting, due)
            while waiting and waiting[0].due_s < high:
                yield self._count(heapq.heappop(waiting))
            low = high
        while waiting:
            yield self._count(heapq.heappop(waiting))

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
        return packet

    def _window(self, cadence: Cadence, low: float, high: float) -> Iterator[Packet]:
        block = self.block(int(low // DAY_S))
        yield from self._status(low, high)
        yield from self._register_packets(block, cadence, low, high)
        yield from self._reference_packets(block, cadence, low, high)
        yield from self._session_packets(block, cadence, low, high)

    # Times ------------------------------------------------------------------------------------

    def _texts(self, t_s: Floats) -> list[str]:
        return time_texts(self.origin_s + self._shift_s + np.asarray(t_s))

    def _sent_s(self, station: Ints, window: Ints, cadence: Cadence) -> Floats:
        """Return when the message of a window leaves its station: a few seconds after its end."""
        spread = min(25.0, cadence.message_s / 3)
        delay = 1 + spread * self.draws.uniform("sending", station, window)
        return np.asarray(np.round((window + 1) * cadence.message_s + delay, 3))

    def _packet(
        self, kind: str, station: int, *, due_s: float, key: str, items: list[Any], distinct: int
    ) -> Packet:
        sequence = self._sequence.get((station, kind), 0) + 1
        self._sequence[station, kind] = sequence
        sent = time_texts(np.array([self.origin_s + due_s + self.clock_s[station]]))[0]
        body = dump({"seq": sequence, "sent_at": sent, key: items})
        return self._made(kind, station, due_s=due_s, body=body, distinct=distinct)

    def _made(self, kind: str, station: int, *, due_s: float, body: bytes, distinct: int) -> Packet:
        self._order += 1
        stations = self.layout.stations
        operator = operator_id(int(stations.operator[station]))
        topic = f"cw/v1/{operator}/{stations.name[station]}/{kind}"
        return Packet(due_s, self._order, topic, body, kind, station, distinct)

    # The four topics --------------------------------------------------------------------------

    def _status(self, low: float, high: float) -> Iterator[Packet]:
        """Yield a status of every station at each full six hours of a window."""
        every = 6 * 3600
        for tick in range(int(np.ceil(low / every)), int(np.ceil(high / every))):
            for k in range(self.layout.stations.size):
                jitter = float(self.draws.normal("clock jitter", k, tick)[0])
                due = tick * every + 0.5 + float(self.draws.uniform("status", k)[0]) * 20
                sequence = self._sequence.get((k, "status"), 0) + 1
                self._sequence[k, "status"] = sequence
                document = {
                    "seq": sequence,
                    "sent_at": time_texts(np.array([self.origin_s + due + self.clock_s[k]]))[0],
                    "online": True,
                    "clock_offset_ms": round(80 * jitter + 1000 * self.clock_s[k]),
                    "backlog": 0,
                    "firmware": "2.4.1",
                }
                yield self._made("status", k, due_s=due, body=dump(document), distinct=0)

    def _register_packets(
        self, block: Block, cadence: Cadence, low: float, high: float
    ) -> Iterator[Packet]:
        readings = self.sampler.readings(block, cadence, begin_s=low, end_s=high)
        if not readings.size:
            return
        rows = self._reading_rows(block, readings)
        station = self.layout.connectors.station[readings.connector]
        window = np.floor(readings.t_s / cadence.message_s).astype(np.int64)
        edge = np.flatnonzero((np.diff(station) != 0) | (np.diff(window) != 0)) + 1
        bounds = [0, *edge.tolist(), readings.size]
        first = np.array(bounds[:-1])
        sent = self._sent_s(station[first], window[first], cadence).tolist()
        for begin, end, due in zip(bounds[:-1], bounds[1:], sent, strict=True):
            k = int(station[begin])
            for cut in range(begin, end, MESSAGE_ITEMS):
                part = rows[cut : min(cut + MESSAGE_ITEMS, end)]
                yield self._packet(
                    "registers", k, due_s=due, key="readings", items=part, distinct=len(part)
                )
            if self._conflicts:
                yield from self._conflicting(readings, rows, (begin, end), (k, due))

    def _reading_rows(self, block: Block, readings: Readings) -> list[dict[str, Any]]:
        names = np.array(self.layout.connectors.name, dtype=object)
        shift = self.clock_s[self.layout.connectors.station[readings.connector]]
        texts = self._texts(readings.t_s + shift)
        energy = numbers(readings.energy_wh)
        power = np.round(readings.power_w, 1).tolist()
        connector = names[readings.connector].tolist()
        rows: list[dict[str, Any]] = [
            {"connector": c, "at": t, "energy_wh": e, "power_w": p}
            for c, t, e, p in zip(connector, texts, energy, power, strict=True)
        ]
        inside = np.flatnonzero(readings.row >= 0)
        sessions = {
            int(row): session_name(self.layout, block, int(row))
            for row in np.unique(readings.row[inside])
        }
        soc = readings.soc_pct
        for k in inside.tolist():
            rows[k]["session"] = sessions[int(readings.row[k])]
            if soc[k] == soc[k]:
                rows[k]["soc_pct"] = int(soc[k])
        for k in np.flatnonzero(readings.context).tolist():
            rows[k]["context"] = CONTEXTS[readings.context[k]]
        if self._electrical:
            self._add_electrical(readings, rows, inside)
        return rows

    def _add_electrical(self, readings: Readings, rows: list[dict[str, Any]], inside: Ints) -> None:
        connector = readings.connector[inside]
        is_dc = self.layout.connectors.is_dc[connector]
        wave = self.draws.normal("voltage", connector, readings.t_s[inside].astype(np.int64))
        soc = np.nan_to_num(readings.soc_pct[inside], nan=50.0)
        volts = np.round(np.where(is_dc, 340 + 0.9 * soc, 229.0) * (1 + 0.005 * wave), 1)
        amperes = np.round(readings.power_w[inside] / volts, 2)
        for k, v, a in zip(inside.tolist(), volts.tolist(), amperes.tolist(), strict=True):
            rows[k]["voltage_v"], rows[k]["current_a"] = v, a

    def _conflicting(
        self,
        readings: Readings,
        rows: list[dict[str, Any]],
        span: tuple[int, int],
        where: tuple[int, float],
    ) -> Iterator[Packet]:
        again = []
        for k in range(*span):
            fault = self._conflicts.get(int(readings.connector[k]))
            if fault is None:
                continue
            u = self.draws.uniform("conflict", readings.connector[k], int(readings.t_s[k]))
            if float(u[0]) < fault["share"]:
                again.append({**rows[k], "energy_wh": rows[k]["energy_wh"] + fault["extra_wh"]})
        if again:
            yield self._packet(
                "registers",
                where[0],
                due_s=where[1] + 0.2,
                key="readings",
                items=again,
                distinct=0,
            )

    def _reference_packets(
        self, block: Block, cadence: Cadence, low: float, high: float
    ) -> Iterator[Packet]:
        times = grid_times(low, high, step_s=cadence.reference_s)
        meters = self.layout.meters
        if not times.size or not meters.size:
            return
        registers, _ = self.feeders.registers(block, times)
        group = (times // cadence.reference_message_s).astype(np.int64)
        for k in np.unique(meters.station).tolist():
            mine = np.flatnonzero(meters.station == k)
            shift = self.clock_s[k]
            for g in np.unique(group).tolist():
                column = np.flatnonzero(group == g)
                texts = self._texts(times[column] + shift)
                items = [
                    {"meter": meters.name[j], "at": text, "energy_wh": value}
                    for j in mine.tolist()
                    for text, value in zip(texts, numbers(registers[j, column]), strict=True)
                ]
                last = int(times[column[-1]] // cadence.message_s)
                due = self._sent_s(np.array([k]), np.array([last]), cadence)[0] + 0.3
                yield self._packet(
                    "reference",
                    k,
                    due_s=float(due),
                    key="readings",
                    items=items,
                    distinct=len(items),
                )

    def _session_packets(
        self, block: Block, cadence: Cadence, low: float, high: float
    ) -> Iterator[Packet]:
        s = block.sessions
        ended = (s.vehicle >= 0) & (s.end_s >= low) & (s.end_s < high)
        ended &= ~self.sampler.hidden(block) & (s.end_s < self._silent_from[s.connector])
        rows = np.flatnonzero(ended)
        if not rows.size:
            return
        station = self.layout.connectors.station[s.connector[rows]]
        rows = rows[np.lexsort((s.connector[rows], s.end_s[rows], station))]
        station = self.layout.connectors.station[s.connector[rows]]
        window = np.floor(s.end_s[rows] / cadence.message_s).astype(np.int64)
        for k in np.unique(station).tolist():
            self._shift_s = float(self.clock_s[k])
            mine = rows[station == k]
            finished = self.bills.finished(block, mine)
            told = self.bills.told(block, finished)
            self._shift_s = 0.0
            connector = s.connector[mine]
            energy = finished.stop_wh - finished.start_wh
            np.add.at(self.published.session_wh, connector, energy)
            np.add.at(self.published.billed_wh, connector, finished.billed_wh)
            np.add.at(self.published.connector_sessions, connector, 1)
            windows = window[station == k]
            for w in np.unique(windows).tolist():
                items = [told[i] for i in np.flatnonzero(windows == w).tolist()]
                due = float(self._sent_s(np.array([k]), np.array([w]), cadence)[0]) + 0.5
                yield self._packet(
                    "sessions", k, due_s=due, key="sessions", items=items, distinct=len(items)
                )
