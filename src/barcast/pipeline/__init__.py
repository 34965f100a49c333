"""The verbs: what the commands and the Python package both call."""
