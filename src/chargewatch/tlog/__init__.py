"""Tamper-evident logs in the C2SP formats: trees, signed checkpoints, tiles, proofs; pure."""
