"""What of a text is kept: rules, duplicates, sets held out, in memory that does not grow. Read ``clean.py`` first."""
