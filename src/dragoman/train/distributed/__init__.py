"""Several processes that learn as one: how they start, meet, share a step and leave."""
