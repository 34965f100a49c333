"""One model per file; no loops, no files, no frames."""
