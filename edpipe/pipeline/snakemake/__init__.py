"""What the Snakefile calls, and the fork server that saves its jobs the imports.

Start with `hooks`.
"""
