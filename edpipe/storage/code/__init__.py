"""What the code of a job means: the definitions that it can reach, their digest, and the version that was confirmed.

`modules` reads one module, `references` finds names in it, `closure` follows them, `normal_form` leaves out what
cannot change a result, `units` names the parts of the code that jobs hang on, and `versions` compares them with
confirmed.yaml. Start with `units`.
"""
