"""Planning: the fingerprint of a dataset -> how its bundle is set up, each decision with its reason.

The rules stand in ``plan.py``. To add a decision: a rule there (or in a file, where it needs more than a page) that
gives a value and a sentence, a field of `Plan`, a line in ``pipeline/bundle/render.py``, and a test against a hand-made
fingerprint.
"""

from pipeline.planning.plan import Plan, plan

__all__ = ["Plan", "plan"]
