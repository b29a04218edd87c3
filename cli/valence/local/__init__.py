"""The local launcher: Postgres, Valkey, the web services and a worker as one foreground command."""
