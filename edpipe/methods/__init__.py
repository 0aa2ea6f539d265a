"""One file a method: its knobs, its stages, what it needs of teachers, what is trained beside the student, its loss.

Nothing else in the package names a method: `params.plans.plugins` finds the files of this folder, and those of users,
alike. torch is imported inside functions, so that params.yaml is read without it. Start with `dkd`, then `ed`.
"""
