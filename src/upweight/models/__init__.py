"""Model families, one file each: from a trained estimator or network to a model with the capabilities that it has."""
