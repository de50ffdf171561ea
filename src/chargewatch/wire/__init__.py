"""What travels: topics, payloads, receipts and files."""
