"""Distributed training: how several processes start, meet, share a step and leave."""
