"""Forecast scores with honest intervals, and comparisons on common rows."""
