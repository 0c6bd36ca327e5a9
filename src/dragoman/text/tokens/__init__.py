"""Text to token ids and back: subwords learnt, and learnt further."""
