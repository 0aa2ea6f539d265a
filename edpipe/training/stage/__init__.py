"""One stage of a student: its inputs checked, the student built, its batches, its loss.

The only package that imports `edpipe.losses`. Start with `task.StageTask`, then `loss.batch_loss`.
"""
