"""Metering: plans, rate limits, API keys and usage counts."""
