"""Who owns what, in memory: the topic's station may speak for its own instruments only."""

from __future__ import annotations

from collections.abc import Iterable

from chargewatch.storage.intake.identities import IdentityRows, Instrument, InstrumentRows

Owner = tuple[str, str]
"""operator_id, station_id."""

INSTRUMENT_TABLES: dict[str, Instrument] = {"connector": "connector", "meter": "reference_meter"}
"""By what an item may name an instrument, and the table that has it; claims are made in order."""


class Instruments:
    """Connectors, or reference meters: their owners, and their keys by owner and name."""

    def __init__(self, rows: Iterable[InstrumentRows]) -> None:
        self._owners: dict[str, Owner] = {}
        self._ids: dict[Owner, dict[str, int]] = {}
        self.claims: set[int] = set()
        claims = []
        for row in rows:
            owner = row.operator_id, row.station_id
            if row.registered:
                self._owners.update(dict.fromkeys(row.ids, owner))
                self._ids.setdefault(owner, {}).update(row.ids)
            else:
                claims.append(row)
        self.add_claims(claims)

    def add_claims(self, rows: Iterable[InstrumentRows]) -> None:
        """Take in instruments that a station sent and nobody registered."""
        for row in rows:
            known = self._ids.setdefault((row.operator_id, row.station_id), {})
            for name, number in row.ids.items():
                if row.registered:
                    known[name] = number
                elif name not in self._owners:
                    known[name] = number
                    self.claims.add(number)

    def ids_of(self, owner: Owner) -> dict[str, int]:
        """Return the keys of an owner's instruments by name."""
        return self._ids.get(owner, {})

    def other_owner(self, name: str, owner: Owner) -> Owner | None:
        """Return whose an instrument is when it is registered to somebody else."""
        registered = self._owners.get(name)
        return None if registered == owner else registered


class Identities:
    """The registry as ingest needs it, as of one moment."""

    def __init__(self, rows: IdentityRows) -> None:
        self.connectors = Instruments(rows.connectors)
        self.meters = Instruments(rows.meters)
        self._stations = rows.stations

    def of(self, key: str) -> Instruments:
        """Return the instruments that items name under a key, one of INSTRUMENT_TABLES."""
        return {"connector": self.connectors, "meter": self.meters}[key]

    def foreign_station(self, owner: Owner) -> str | None:
        """Return whose a station is when it is registered to another operator."""
        registered = self._stations.get(owner[1])
        return None if registered == owner[0] else registered

    def is_registered(self, owner: Owner) -> bool:
        """Return whether a station is in the registry as the operator's."""
        return self._stations.get(owner[1]) == owner[0]
