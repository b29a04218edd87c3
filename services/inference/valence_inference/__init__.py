"""Sentiment now: scores one text, accepts batches, shows history and results."""
