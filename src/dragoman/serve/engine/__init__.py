"""The engine: rows of many requests that join and leave batches step by step."""
