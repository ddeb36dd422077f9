"""Sums of trees: one form for every library, their losses, and the replay of how leaf values came about."""
