"""Checklist: one page on a model before it goes live, a verdict a row, each with what was measured and on how many."""
