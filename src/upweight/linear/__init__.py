"""Generalised linear models in closed form: losses, features, Hessians, leverage, Newton steps (numpy and scipy)."""
