"""Documents: texts with placeholders, and files of messages, whose markup must survive translation."""
