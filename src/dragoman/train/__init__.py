"""Training: a run from its configuration to its last checkpoint. Read loop.py first, then run.py."""
