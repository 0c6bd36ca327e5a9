"""Positions of tokens, absolute and relative, and their effect on embeddings and attention."""
