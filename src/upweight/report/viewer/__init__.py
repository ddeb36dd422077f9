"""The viewer: the report of a data set that is too large for one file, served page by page from this machine."""
