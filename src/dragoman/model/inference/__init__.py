"""Models that only run: weights laid out for decoding, and our own kernels, which do a whole step in one call."""
