"""Accounts and login: the one service that signs tokens."""
