"""A matrix and low-rank updates of it."""
