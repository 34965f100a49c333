"""One loop for every neural model, and checkpoints that survive a kill."""
