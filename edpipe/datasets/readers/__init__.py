"""One module for each published layout of raw images: labels, splits and images, in a fixed order.

Imports `storage` and below; only `by_name` is used from outside. Start with `digits`, the smallest, then `by_name`.
"""
