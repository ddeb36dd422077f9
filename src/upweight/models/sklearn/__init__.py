"""Estimators of scikit-learn: one file per kind, and the parts that several kinds are read with."""
