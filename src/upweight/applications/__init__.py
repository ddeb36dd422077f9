"""One file per use."""
