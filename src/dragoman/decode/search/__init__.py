"""Search for the most probable translation, one token after the other. Read ``search.py`` first."""
