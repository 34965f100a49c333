"""What we try to predict, and when it becomes known."""
