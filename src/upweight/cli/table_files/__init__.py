"""Tables in files: the file → a data frame, with what was found out about the file on the way."""
