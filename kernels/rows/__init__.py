"""Rows of matrices, put together anew."""
