"""Fuzzing: what is fed, how inputs are changed, and seeds to start from."""
