"""Engines of one machine: PostgreSQL from a wheel, an MQTT broker, and the demo on top of them."""
