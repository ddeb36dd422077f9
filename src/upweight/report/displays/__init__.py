"""Figures for papers and notebooks, by matplotlib: one class per figure, which keeps its arrays and its axes."""
