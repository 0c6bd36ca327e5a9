"""Comparisons of many runs under equal budgets."""
