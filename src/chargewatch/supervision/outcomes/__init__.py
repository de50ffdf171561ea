"""What became of flags: hits and misses by later verifications, and the figures of them."""
