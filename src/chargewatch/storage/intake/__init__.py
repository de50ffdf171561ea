"""What ingest and replay write, each batch in one transaction."""
