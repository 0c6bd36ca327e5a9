"""Constraints on what a search may generate: repetition, forced beginnings, required and forbidden terms."""
