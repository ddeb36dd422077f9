"""Suspect labels as the files of the tools where people label, and their decisions back as a patch."""
