"""The central types: examples, models, objectives, rows, curvature, attributors, scores. Needs numpy only."""
