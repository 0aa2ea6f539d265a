"""Losses per sample, as functions of outputs and targets; no files, no networks.

Only `training.stage` imports these: an edit of a loss must not train a teacher again. DKD and DIST are in `logits`,
attention maps and hints in `features`, the weights of several teachers in `teacher_weights`. Start with `kd`.
"""
