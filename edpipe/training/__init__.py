"""The one training loop, its checkpoints, and the tasks that it trains: teachers, and stages of students.

Imports everything below but nothing of the pipeline. Start with `loop`, then `resumable`; `stage/` holds what is
special to students.
"""
