"""Caches of keys and values while decoding: any storage in any layout. Read ``cache.py`` first."""
