"""Searches: their knobs, the trials that follow from them, and what is wrong with either."""
