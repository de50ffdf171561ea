"""Inspections: draws from the registry, results, sampling of lots, and where to go first."""
