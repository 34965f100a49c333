"""Search over options: what may vary, and the study that remembers every trial."""
