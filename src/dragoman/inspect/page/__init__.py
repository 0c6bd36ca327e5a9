"""One self-contained page about one answer of a model: attention, attribution, probabilities and search."""
