"""Forecast scores with honest intervals, and comparisons on common rows.

`compare.compare` puts models side by side, `render` shows the result, `series` is what a report draws of one
model, `sealed` counts looks at the test segment; `metrics` and `intervals` are the arithmetic underneath.
"""
