"""One file per attributor."""
