"""What ingest says of a key that came with two values; signals repeat it."""

from __future__ import annotations

from chargewatch.domain.sentence import Sentence

READING_STORED = Sentence(
    "reading_stored", "readings[{place:d}]: {energy:.15g} Wh is stored already for {at}"
)
SESSION_STORED = Sentence(
    "session_stored",
    "sessions[{place:d}]: session {session} is stored already with other content",
)
EVENT_STORED = Sentence(
    "event_stored", "events[{place:d}]: {kind} of that time is stored already with other content"
)
