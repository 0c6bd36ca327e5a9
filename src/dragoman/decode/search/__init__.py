"""How the likeliest translation is looked for, one token after the other. Read ``search.py`` first."""
