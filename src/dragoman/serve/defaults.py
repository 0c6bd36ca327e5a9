"""Limits of a server where its options give no others; imports nothing, for help texts show them."""

QUEUE = 1024
"""Most requests that are answered or wait at a time."""
CHARACTERS = 100_000
"""Most characters of all texts of a request together."""
TEXTS = 1_000
"""Most texts of a request."""
FILE_BYTES = 32 << 20
"""Most bytes of an uploaded file."""
