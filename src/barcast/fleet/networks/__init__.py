"""Dedicated recurrent networks, many at once: their weights are one stack, and a step moves them all."""
