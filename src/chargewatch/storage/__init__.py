"""All SQL of the platform."""
