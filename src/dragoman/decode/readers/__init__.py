"""Models that read whole inputs and say something of each: labels, tags, spans, vectors."""
