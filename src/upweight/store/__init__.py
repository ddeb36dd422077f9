"""The store: rows of training gradients and factors of the curvature on disk, and questions to them."""
