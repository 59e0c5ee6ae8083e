"""Clients written by others, against the running gateway."""
