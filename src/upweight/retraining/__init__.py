"""Retraining: every real training is handed out, kept and brought back by this room."""
