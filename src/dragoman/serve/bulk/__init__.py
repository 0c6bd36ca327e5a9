"""Bulk translation: files of any length in shards of lines, by several processes or machines, resumable at any time."""
