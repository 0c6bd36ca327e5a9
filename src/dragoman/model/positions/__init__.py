"""Where tokens stand, how that enters attention, and who may see whom."""
