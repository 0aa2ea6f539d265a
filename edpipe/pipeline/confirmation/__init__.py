"""Whether edited code gives the same bytes as the code that was confirmed: both run the same small jobs.

`history` finds the confirmed code in git, `probe` runs jobs with one copy of the code, `comparison` compares what they
made, and `confirm` brings it together. Start with `confirm`.
"""
