"""Models and their configuration, independent of files and text. Read transformer.py first."""
