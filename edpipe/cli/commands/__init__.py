"""One module for each command that is not a step: check, plan, verify, compare, zoo, new and the like.

Start with `check` or `plan`.
"""
