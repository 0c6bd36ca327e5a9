"""What may be said next: by repetition, beginning, required and forbidden terms. Read ``rules.py`` first."""
