"""A simulated city: its registry, its messages in order of time, and the truth about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Floats
from chargewatch.simulators.faults import Faults
from chargewatch.simulators.history import History, local_midnight_s
from chargewatch.simulators.metering import make_meters
from chargewatch.simulators.packet import Packet
from chargewatch.simulators.readings import Cadence
from chargewatch.simulators.registry import registry_document
from chargewatch.simulators.scenario import Scenario, load_scenario
from chargewatch.simulators.stream import PacketStream
from chargewatch.simulators.truth import truth_document

LIVE_CADENCE = Cadence(
    charging_s=30, idle_s=300, message_s=30, reference_s=300, reference_message_s=300
)
"""How often a live city sends: a station's message every 30 s."""


def make_city(
    scenario: str | Scenario, *, seed: int = 1, to: datetime | None = None, **overrides: Any
) -> City:
    """Return a city of a scenario.

    Args:
        scenario: a scenario's name, or a scenario.
        seed: repeats the city exactly, given the same ``to``.
        to: end of the history (aware); default: the last midnight in Shanghai.
        overrides: parameters of the scenario.

    Raises: InputFileError for an unknown scenario, parameter or fault.
    """
    if isinstance(scenario, str):
        scenario = load_scenario(scenario, **overrides)
    elif overrides:
        scenario = replace(scenario, **overrides)
    to_s = local_midnight_s(time.time()) if to is None else float(int(to.timestamp()))
    return City(scenario, seed=seed, to_s=to_s)


class City(History):
    """A city with a history of ``scenario.days`` days up to ``to_s`` (epoch seconds)."""

    def __init__(self, scenario: Scenario, *, seed: int, to_s: float) -> None:
        super().__init__(scenario, seed=seed, to_s=to_s)
        self._stream: PacketStream | None = None
        self._truth: dict[str, Any] | None = None

    def packets(self) -> Iterator[Packet]:
        """Yield the history's messages in order of time; then the truth is known."""
        self.faults.struck.clear()
        stream = self._stream = self.new_stream()
        yield from stream.packets(
            self.history_cadence,
            begin_s=self.from_s - self.origin_s,
            end_s=self.to_s - self.origin_s,
        )
        self._truth = truth_document(self, stream)

    def messages(self) -> Iterator[tuple[str, bytes]]:
        """Yield topic and payload of the history's messages in order of time."""
        for packet in self.packets():
            yield packet.topic, packet.body

    def live(self, *, cadence: Cadence = LIVE_CADENCE) -> Iterator[tuple[float, str, bytes]]:
        """Yield (epoch seconds when due, topic, payload) after the history, without end.

        Call it after ``messages()`` was read to its end; sequence numbers and registers go on.
        """
        if self._stream is None or self._truth is None:
            for _ in self.packets():
                pass
        if self._stream is None:
            raise ValueError("the history comes first")
        packets = self._stream.packets(
            cadence, begin_s=self.to_s - self.origin_s, end_s=float("inf")
        )
        for packet in packets:
            yield self.origin_s + packet.due_s, packet.topic, packet.body

    def registry(self) -> dict[str, Any]:
        """Return registry.json."""
        return registry_document(
            self.scenario,
            self.draws,
            layout=self.layout,
            faults=self.faults,
            from_s=self.from_s,
            to_s=self.to_s,
            healthy_error=self.healthy_error(),
        )

    def healthy_error(self) -> Floats:
        """Return the meters' error before any fault, shape (n,)."""
        connectors = self.layout.connectors
        rows = np.arange(connectors.size)
        healthy = make_meters(self.layout, Faults([]), length_s=self.to_s - self.origin_s)
        load = np.where(connectors.is_dc, 0.5, 0.9)
        return connectors.gain + healthy.load_error(rows, load, np.full(rows.size, 20.0))

    def truth(self) -> dict[str, Any]:
        """Return truth.json; runs through the history when ``messages()`` was not read."""
        if self._truth is None:
            for _ in self.packets():
                pass
        if self._truth is None:
            raise ValueError("the history did not end")
        return self._truth
