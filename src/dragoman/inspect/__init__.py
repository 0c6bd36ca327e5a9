"""Inspection of a model: what it looked at, why it answered as it did, and whether it is wired right."""
