"""The inference service: scores texts, and serves batches, results and the history."""
