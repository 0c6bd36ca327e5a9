"""Kernels of our own, in C: built by the machine's compiler when first needed, for the processor it has."""
