"""A training run as a value: what was recorded of it, and what can be done again (torch)."""
