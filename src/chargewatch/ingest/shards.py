"""Several ingest workers: which takes which station.

Every worker has a session of its own that holds everything, and takes the stations whose hash is
its number. So no station can fall between workers, registered or not, and none has to be told.
docs/decisions/ingest-shards.md says what that costs.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from chargewatch.errors import SettingError
from chargewatch.storage.intake.broker_sessions import Slot


@dataclass(frozen=True)
class Shard:
    """One of `count` workers."""

    index: int = 0
    count: int = 1

    def slot(self, base: str) -> Slot:
        """Return this worker's place among all that have ever been, where its session is noted."""
        return Slot(base, self.index, self.count)

    def owns(self, topic: str) -> bool:
        """Return whether this worker takes a topic: all topics of a station go to one worker."""
        if self.count == 1:
            return True
        station = "/".join(topic.split("/")[2:4])
        return zlib.crc32(station.encode()) % self.count == self.index


def parse_shard(text: str) -> Shard:
    """Return the shard that "0/4" names; SettingError when it names none."""
    index, separator, count = text.partition("/")
    if not (separator and index.isdecimal() and count.isdecimal()):
        raise SettingError(f"--shard {text!r}: use INDEX/COUNT, for example 0/4")
    shard = Shard(int(index), int(count))
    if not 0 <= shard.index < shard.count:
        raise SettingError(f"--shard {text!r}: the index goes from 0 to {shard.count - 1}")
    return shard
