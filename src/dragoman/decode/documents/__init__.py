"""Texts that must survive being translated: long ones, placeholders, files of messages."""
