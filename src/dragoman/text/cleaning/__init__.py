"""Cleaning of text: rules, duplicates and held-out sets, in memory that does not grow. Read ``clean.py`` first."""
