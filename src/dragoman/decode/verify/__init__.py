"""Verification: whether a model gives the same answers in every way it can be run, counted example by example."""
