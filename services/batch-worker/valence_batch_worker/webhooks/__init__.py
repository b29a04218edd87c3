"""Webhooks: claim due deliveries from Postgres, sign them, and send them with SSRF protection."""
