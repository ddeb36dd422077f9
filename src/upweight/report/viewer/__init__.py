"""The viewer: the report of a set that is too large for one file, page by page from a local server."""
