"""One file per model family: what a trained model of that family can do."""
