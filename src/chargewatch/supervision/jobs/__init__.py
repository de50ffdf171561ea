"""Work that nobody waits for: it survives the end of whoever does it."""

STATES = ("waiting", "running", "done", "failed")
