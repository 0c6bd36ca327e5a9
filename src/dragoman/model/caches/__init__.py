"""What attention layers keep while decoding: any storage in any layout. Read ``cache.py`` first."""
