"""Chaos: batches complete while everything around them fails (reliability case 118)."""
