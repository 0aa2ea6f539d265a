"""A teacher's logits: computed, stored, checked, read back in batches.

Imports `views`, `models` and below; `training` reads from here. Start with `file/format`, then `file/writer` (where an
interrupted dump resumes) and `file/store` (how a student reads).
"""
