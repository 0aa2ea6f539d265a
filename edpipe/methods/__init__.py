"""One file a method: which stages a student goes through, with which subsets, teachers and weights of losses.

Imports `params` only, so that a plan can be made without torch. Start with `plan.StagePlan`, then `ed`.
"""
