"""How rows of logits become bytes, and what that costs in divergence and in bytes.

NumPy only, no files. Start with `precisions`, then `quantisation` for the certified bound.
"""
