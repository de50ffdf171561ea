"""The office's work on the registry: look up, edit, import, what is due, how much is covered."""
