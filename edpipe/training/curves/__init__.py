"""Learning curves: what a training shows of itself on its way. Nothing here can change what is trained.

`settings` says what is wanted, `observer` writes the file of one training, `validation` measures a network in between.
The files are no artifacts: no job reads them, and none hangs on how they are made.
"""
