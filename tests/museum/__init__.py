"""Models with planted mistakes; a package, so that it is found before a benchmark of the same name."""
