"""Results against a base: paired differences over seeds with intervals and p values; tables of studies.

Start with `paired_test`, then `comparison`.
"""
