"""Frozen values and pure rules of the field; knows no database, broker or web framework."""
