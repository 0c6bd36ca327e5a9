"""Defaults that the command line shows before anything of PyTorch is imported."""

BEAM = 5
"""Hypotheses kept by a beam search where nothing else is said."""
