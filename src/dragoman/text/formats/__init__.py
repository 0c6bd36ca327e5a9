"""Files of text, read strictly and written whole: a file a format. Read ``formats.py`` first."""
