"""Does a model give the same answer every way it can be asked? Counted, example by example."""
