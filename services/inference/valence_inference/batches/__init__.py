"""Batches: submission, status, lifecycle, results, summaries and webhooks."""
