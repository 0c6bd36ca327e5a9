"""Limits of what the engine does at a time."""

MOST_ROWS = 512
"""Most hypotheses of one group in a step. More of them make each step longer and save little."""
START_TOKENS = 2048
"""Most source tokens that start in one round, so that those under way do not wait long."""
START_SHARE = 0.25
"""Share of a group's places that are free before rows of a kind start of which more wait than can."""
FEW_SHARE, PATIENCE = 0.15, 4
"""Rows of a kind wait up to ``PATIENCE`` steps while they are fewer than this share of those that run."""
STEPS = 4
"""Steps that are made at once, while no row can join."""
SHORT = 0.003
"""Seconds of as many steps as are made at once where these are more."""
MOST_STEPS = 32
"""Most steps that are made at once."""
CHUNK = 256
"""Tokens of a prompt that are read between two steps."""
BULK_SHARE = 0.5
"""Largest share of a group's rows that bulk requests take while interactive ones run."""
PREFIX_SHARE = 0.25
"""Largest share of the memory that prefixes take."""
