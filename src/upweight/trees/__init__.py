"""Tree ensembles in one form for every library, their losses, and the replay of boosting that explains leaf values."""
