"""The truth: retraining, and how well predictions agree with it."""
