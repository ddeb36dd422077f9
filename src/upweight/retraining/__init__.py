"""Retraining: the tasks, the ways in which they are done, and the files of their results."""
