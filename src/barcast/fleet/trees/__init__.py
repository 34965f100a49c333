"""Dedicated ensembles of trees: a forest and two boosters a symbol, served without their libraries."""
