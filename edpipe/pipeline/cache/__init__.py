"""What lies in artifacts/ and results/: `places` says what a path is of, `inventory` who needs it, `savings` what it
saved, `deletion` removes what nobody needs. Links are not followed.
"""
