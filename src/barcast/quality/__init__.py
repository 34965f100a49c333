"""What is wrong with the bars, row by row, and what to do about each kind."""
