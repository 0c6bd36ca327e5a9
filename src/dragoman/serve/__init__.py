"""Serving: one engine for many requests, its APIs, a page, bulk work on files, and the rules of a safety page."""
