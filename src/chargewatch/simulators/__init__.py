"""Fleets with a known truth, and the publisher that sends them through the real broker."""
