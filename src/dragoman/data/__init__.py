"""Data: stored pairs to batches of tensors (batch), and what is learnt from them (tasks)."""
