"""What the office's work reads and writes."""
