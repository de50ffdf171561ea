"""The risk engine: numpy and scipy, pure functions on arrays; no clock, randomness or I/O inside."""
