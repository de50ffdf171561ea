"""Metering supervision of EV charging piles."""

__version__ = "0.1.0"
