"""Channels, hidden units and heads that are really removed, from every tensor they are in."""
