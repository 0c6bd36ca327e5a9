"""Models prepared for inference: packed weights, and our own kernels, which run a whole decoding step in one call."""
