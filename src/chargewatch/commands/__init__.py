"""The commands of `chargewatch`: each parses its options and calls a service."""
