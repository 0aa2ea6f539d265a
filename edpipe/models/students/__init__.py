"""Students: body blocks so far, a teaching reference block in place of the rest, and what only training needs.

Imports `models.splitting` and below; used by `training.stage`. Start with `student`, then `reference_blocks`.
"""
