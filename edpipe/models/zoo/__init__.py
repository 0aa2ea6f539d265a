"""Networks for small images, one family a module, and `build`, which makes any network by its name.

Imports nothing of the package above `params`. A new family is a module here and a name in `names`. Start with `build`.
"""
