"""A station's gateway that loses nothing: lines in, a spool on disk, MQTT out, receipts back."""
