"""The losses of linear models, with two derivatives each: one file per kind of loss."""
