"""Applications of attribution scores, one file per use."""
