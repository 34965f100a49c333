"""What a training will need, before it runs: parameters, memory, time, and which scheme and size suit."""
