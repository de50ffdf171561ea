"""Money owed: which sessions it comes from."""
