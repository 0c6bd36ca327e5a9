"""OpenAI's API, so that its clients work unchanged: models, completions, conversations, embeddings."""
