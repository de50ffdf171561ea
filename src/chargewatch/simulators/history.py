"""The history of a simulated city: who stands where, what is wrong, from when to when."""

from __future__ import annotations

from datetime import UTC, datetime

from chargewatch.domain.times import DAY_S
from chargewatch.simulators.batteries import Batteries
from chargewatch.simulators.charging import Demand
from chargewatch.simulators.cheats import Cheats
from chargewatch.simulators.clocks import Clocks
from chargewatch.simulators.draws import Draws
from chargewatch.simulators.faults import Faults, assign_faults
from chargewatch.simulators.layout import Layout, make_layout
from chargewatch.simulators.metering import EnergyLedger, MeterModel, make_meters
from chargewatch.simulators.readings import Cadence
from chargewatch.simulators.scenario import Scenario
from chargewatch.simulators.stream import PacketStream
from chargewatch.simulators.wire_form import OFFSET_S


def local_midnight_s(now_s: float) -> float:
    """Return the epoch time of the last midnight in Shanghai at or before a time."""
    return (now_s + OFFSET_S) // DAY_S * DAY_S - OFFSET_S


class History:
    """``scenario.days`` days of a city up to ``to_s`` (epoch seconds), before they are played."""

    def __init__(self, scenario: Scenario, *, seed: int, to_s: float) -> None:
        self.scenario, self.seed, self.to_s = scenario, seed, to_s
        self.from_s = to_s - scenario.days * DAY_S
        # The simulation's clock is 0 at local midnight, so that days are days.
        self.origin_s = local_midnight_s(self.from_s)
        self.draws = Draws(seed)
        self.layout: Layout = make_layout(scenario, self.draws)
        self.faults: Faults = assign_faults(scenario, self.draws, self.layout)
        self.meters: MeterModel = make_meters(
            self.layout, self.faults, length_s=self.to_s - self.origin_s
        )

    @property
    def clocks(self) -> Clocks:
        """The stations' clocks."""
        zone = self.scenario.time_zone
        return Clocks(self.layout, self.faults, origin_s=self.origin_s, zone=zone)

    @property
    def history_cadence(self) -> Cadence:
        """How often the city reads and sends during its history."""
        s = self.scenario
        return Cadence(
            charging_s=s.charging_cadence_s,
            idle_s=s.idle_cadence_s,
            message_s=s.message_s,
            reference_s=s.reference_cadence_s,
            reference_message_s=s.reference_message_s,
        )

    def new_stream(self) -> PacketStream:
        """Return everything that runs in time, at the start of the history."""
        origin_local_s = self.origin_s + OFFSET_S
        demand = Demand(self.scenario, self.draws, self.layout, from_local_s=origin_local_s)
        end_s = self.to_s - self.origin_s
        cheats = Cheats(
            self.layout,
            self.faults,
            from_local_s=origin_local_s,
            span_s=(self.from_s - self.origin_s, end_s),
        )
        ledger = EnergyLedger(self.layout, self.meters, origin_local_s, cheats)
        return PacketStream(
            self.layout,
            self.draws,
            self.faults,
            parts=(demand, ledger),
            clocks=self.clocks,
            batteries=Batteries(self.draws, self.faults, scenario=self.scenario),
            origin_s=self.origin_s,
            end_s=end_s,
            electrical=self.scenario.electrical,
        )

    def time_text(self, epoch_s: float) -> str:
        """Return a time as RFC 3339 in UTC."""
        return datetime.fromtimestamp(epoch_s, UTC).isoformat().replace("+00:00", "Z")
