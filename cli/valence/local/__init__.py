"""The local launcher: Postgres, Valkey, the web services and a worker in one foreground command."""
