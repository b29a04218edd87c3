"""Webhooks: what is due is claimed from Postgres, signed, and sent past a guard of addresses."""
