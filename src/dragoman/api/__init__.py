"""The library in a few names: train, load, evaluate, import and export, for programs and notebooks.

``from dragoman import ...`` gives all of it. Nothing here prints; what is wrong with an argument is an exception with
one clear sentence (``dragoman.errors``).
"""
