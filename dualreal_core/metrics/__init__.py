"""Scores of videos against references: identity, motion, temporal consistency. Plain tensors in, plain numbers out.

`registry` says what is measured, `features` on what, and `scores` does it, for `dualreal evaluate` and for the Evaluate node.
"""
