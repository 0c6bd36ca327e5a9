"""Documents that are translated in place: untranslated parts are filled, and nothing else changes."""
