"""One risk run: load, find signals, estimate, decide, save; and its exports."""
