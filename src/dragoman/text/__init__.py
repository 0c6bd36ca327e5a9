"""Text: files to sentence pairs (formats), cleaned (clean), split (split), to ids (tokenizer), stored (corpus).

Knows nothing of models.
"""
