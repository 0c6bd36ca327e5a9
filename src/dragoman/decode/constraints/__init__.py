"""Constraints on what a search may generate: repetition, forced prefixes, required and forbidden terms."""
