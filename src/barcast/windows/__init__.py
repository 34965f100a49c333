"""Rows become tensors: normalisation, windows and stretches."""
