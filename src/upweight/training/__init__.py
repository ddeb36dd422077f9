"""A training run as a value: the recipe, its steps, replay with example weights, many stacked copies at once."""
