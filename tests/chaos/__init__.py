"""Chaos: batches are worked on while everything around them is struck (CATALOGUE 118)."""
