"""Training: a run from its configuration to its last checkpoint. Read loop.py first, then trainer.py, then run.py."""
