"""Modules and their configuration: knows nothing of files or text. Read transformer.py first."""
