"""What a risk run reads and saves."""
