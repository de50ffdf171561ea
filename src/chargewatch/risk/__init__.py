"""The risk engine: numpy and scipy, pure functions on arrays; no clock, no I/O inside."""
