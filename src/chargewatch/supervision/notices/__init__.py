"""Telling people and programs what concerns them, once."""
