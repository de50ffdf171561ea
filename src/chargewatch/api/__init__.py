"""JSON under /api/v1: thin endpoints over storage queries."""
