"""Evaluation: how well a model does, in numbers that can be compared with other people's."""
