"""The truth by retraining, and how well scores agree with it."""
