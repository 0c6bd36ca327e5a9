"""Files of a Hugging Face folder whose model transformers opens by ``trust_remote_code``, without this package."""
