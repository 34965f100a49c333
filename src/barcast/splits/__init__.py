"""Which sessions may teach and which may judge: purge, embargo, walk-forward."""
