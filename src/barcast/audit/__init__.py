"""Finds any value that sees beyond its cutoff."""
