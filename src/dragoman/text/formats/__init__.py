"""Readers and writers of text files: strict reading, complete writing, one file per format. Read ``pairs.py`` first."""
