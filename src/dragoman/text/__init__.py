"""Text: files to sentence pairs (formats), cleaned and held out (cleaning), to ids (tokens), stored (corpus.py).

Knows nothing of models.
"""
