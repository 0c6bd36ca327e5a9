"""Costs of a run: counted on the model itself before it runs, and compared with what was measured."""
