"""Text: read files as sentence pairs (formats), clean and split them (cleaning), encode them as ids (tokens), store
them (corpus.py).

Knows nothing of models.
"""
