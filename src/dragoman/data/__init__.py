"""Data: batches of tensors from stored examples (batch, packing), and the objectives trained on them (tasks)."""
