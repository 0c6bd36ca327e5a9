"""Text to token ids and back: training tokenizers and extending them."""
