"""The fleet: thousands of dedicated models inside a budget, each finished one kept for good."""
