"""Conversations: several spoken turns with one model, from files or live."""
