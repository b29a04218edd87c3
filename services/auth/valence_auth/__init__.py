"""Accounts and login: the only service that signs tokens."""
