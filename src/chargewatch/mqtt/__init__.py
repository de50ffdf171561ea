"""What all that speaks MQTT shares: the broker's address, and a log-in that fails at once."""
