"""Bills that are awkward but honest: who pays less, something else too, or by another price."""

from __future__ import annotations

from typing import Any

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.simulators.billing import money
from chargewatch.simulators.draws import Draws
from chargewatch.simulators.faults import Fault, Faults

PRICED = ("free", "member", "bundled")
"""Oddities of prices; fees follow from them."""
TOLD = ("no_service_fee", "coupon", "untold_coupon", "parking", "prepaid")
"""Oddities of what is told once fees are known."""


class HonestBills:
    """Applies the oddities of bills to the sessions that they concern."""

    def __init__(self, draws: Draws, faults: Faults) -> None:
        self._draws = draws
        self._priced = {name: faults.of_kind(name) for name in PRICED}
        self._told = {i: fault for name in TOLD for i, fault in faults.of_kind(name).items()}

    def concerns(self, fault: Fault, connector: int, day: int, number: int) -> bool:
        """Return whether a customer is one of those whom an oddity concerns."""
        part = float(fault.parameters.get("part", 1.0))
        return float(self._draws.uniform("customer", connector, day, number)[0]) < part

    def prices(
        self, energy_e4: Ints, service_e4: Ints, session: Ints, address: tuple[Ints, Ints, Ints]
    ) -> tuple[Ints, Ints]:
        """Return the prices of periods as these customers have them.

        Args:
            energy_e4: energy price of each period, 1e-4 per kWh.
            service_e4: service price, likewise.
            session: row of each period's session.
            address: connector, day and number of each session.
        """
        if not any(self._priced.values()):
            return energy_e4, service_e4
        energy, service = energy_e4.copy(), service_e4.copy()
        for name, faults in self._priced.items():
            for row in np.flatnonzero(np.isin(address[0], list(faults))).tolist():
                i, day, number = (int(column[row]) for column in address)
                if not self.concerns(faults[i], i, day, number):
                    continue
                mine: Bools = session == row
                if name == "bundled":
                    energy[mine] += service[mine]
                    service[mine] = 0
                elif name == "free":
                    energy[mine] = service[mine] = 0
                else:
                    lower: Floats = np.round(energy[mine] * faults[i]["factor"])
                    energy[mine] = lower.astype(np.int64)
        return energy, service

    def tell(
        self, told: dict[str, Any], cents: tuple[int, int], address: tuple[int, int, int]
    ) -> None:
        """Change what a session tells of its money; ``cents`` are its energy and service fee."""
        fault = self._told.get(address[0])
        if fault is None or not self.concerns(fault, *address):
            return
        total = sum(cents)
        match fault.kind.name:
            case "no_service_fee":
                del told["service_fee"]
                for period in told["periods"]:
                    del period["service_price"]
            case "coupon" | "untold_coupon":
                discount = min(round(100 * fault["value"]), total)
                told["total_fee"] = money(total - discount)
                if fault.kind.name == "coupon":
                    told["discount"] = money(discount)
            case "parking":
                other = round(100 * fault["value"])
                told |= {"other_fee": money(other), "total_fee": money(total + other)}
            case "prepaid":
                told |= dict.fromkeys(("energy_fee", "service_fee", "total_fee"), money(0))
