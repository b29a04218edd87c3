"""Batches: submitting, reading and controlling them."""
