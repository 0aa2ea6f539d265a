"""Files that appear whole or not at all, with digests and records; formats that no single package owns.

Imports `params` and `runtime`; used by every package that reads or writes files. Start with `atomic`, then `records`.
"""
