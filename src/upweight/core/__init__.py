"""The nouns: examples, models, objectives, rows, curvature, attributors, scores (numpy and the standard library)."""
