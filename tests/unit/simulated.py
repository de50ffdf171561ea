"""A small simulated city, taken apart into readings and sessions by an independent hand."""

import json
from collections import defaultdict
from datetime import UTC, datetime

from chargewatch.simulators.city import make_city
from chargewatch.simulators.scenario import FaultSpec

TO = datetime(2026, 3, 1, tzinfo=UTC)
SMALL = {
    "stations": 3,
    "connectors_per_station": 4,
    "days": 12,
    "signed_share": 1.0,
    "idle_cadence_s": 7200,
    "message_s": 7200,
}


def small_city(*faults, seed=5, **overrides):
    specs = [FaultSpec(fault=name, count=1, parameters=p) for name, p in faults]
    return make_city("quiet-city", seed=seed, to=TO, **{**SMALL, **overrides}, faults=specs)


class Published:
    """What one city published, by who it is about."""

    def __init__(self, city):
        self.messages = [(topic, json.loads(body)) for topic, body in city.messages()]
        self.readings = defaultdict(list)
        self.reference = defaultdict(list)
        self.sessions = defaultdict(list)
        self.sequences = defaultdict(list)
        for topic, body in self.messages:
            kind = topic.rsplit("/", 1)[1]
            self.sequences[topic].append(body["seq"])
            for item in body.get("readings", ()):
                if kind == "registers":
                    self.readings[item["connector"]].append(item)
                else:
                    self.reference[item["meter"]].append(item)
            for item in body.get("sessions", ()):
                self.sessions[item["connector"]].append(item)
        self.truth = city.truth()
        self.registry = city.registry()

    def of_connector(self, name):
        """Everything about a connector, without the order in which it came."""
        items = self.readings[name] + self.sessions[name]
        return sorted(json.dumps(item, sort_keys=True) for item in items)

    def of_station(self, name):
        """Every message of a station."""
        return [(t, json.dumps(b)) for t, b in self.messages if t.split("/")[3] == name]
