"""The curvature of a network, in forms that linear systems can be solved with; one file per kind."""
