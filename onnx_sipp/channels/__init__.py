"""Channels, hidden units and heads that are really removed: cut out of every tensor they run through."""
