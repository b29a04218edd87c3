"""The batch worker: scores chunks of batches, relays events, sends webhooks, deletes old data."""
