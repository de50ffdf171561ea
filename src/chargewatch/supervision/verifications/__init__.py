"""On-site verifications: what was measured, what it is worth, and what follows from it."""
