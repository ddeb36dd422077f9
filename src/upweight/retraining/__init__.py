"""Retraining: its tasks, the ways to run them, and the files of their results."""
