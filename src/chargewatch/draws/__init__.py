"""Inspection draws that anyone can verify: frozen list, tickets, plans, sequential tests; pure."""
