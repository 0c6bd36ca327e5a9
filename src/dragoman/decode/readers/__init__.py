"""Readers: models that read complete inputs and predict labels, tags, spans or vectors for each."""
