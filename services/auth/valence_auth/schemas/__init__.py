"""What the auth service takes and answers."""
