"""Parts of convolutional models: layers with their states, blocks, stacks, and what a decoder reads of a source."""
