"""HTTP in front of a ``Service``: our own JSON, LibreTranslate's API, OpenAI's, metrics, and the page."""
