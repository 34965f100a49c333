"""Trackers mirror a run: SwanLab, MLflow, TensorBoard. The run's folder stays the truth.

A tracker that fails is switched off and never stops a training; none of them uses the network unless asked.
"""
