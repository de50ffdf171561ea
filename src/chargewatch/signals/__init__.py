"""The integrity signals: the checks on registers, sessions, tariffs, records and stations."""
