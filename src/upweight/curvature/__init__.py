"""Curvature of a network as something that can be solved with, one file per kind."""
