"""The supervisor's side: the registry of instruments, accounts, evidence."""
