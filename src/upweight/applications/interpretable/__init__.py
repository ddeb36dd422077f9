"""What a local explanation can name: columns of a table, words of a text, superpixels of a picture."""
