"""Numbers from logits and labels: accuracy, agreement, calibration, forgetting, cost.

Start with `metrics`; `student` applies all of them to one seed, `seeds` sums over seeds.
"""
