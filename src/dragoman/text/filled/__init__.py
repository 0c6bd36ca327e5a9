"""Documents whose untranslated places are filled, and in which nothing else changes."""
