"""Encodings of the rows of a store, one file each: which numbers are kept of a layer's gradient, and in which basis."""
