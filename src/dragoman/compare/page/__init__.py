"""Pages of studies: one for each, and the gallery of all."""
