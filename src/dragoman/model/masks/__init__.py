"""Attention masks: which keys each query may attend to."""
