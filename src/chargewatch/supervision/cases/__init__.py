"""Cases: from a flag, signal or complaint to a verdict that somebody answers for."""
