"""Runs inside the user's interpreter: a Llama model, its generate loop, and the proofs that a machine computes rightly.

PyTorch and the standard library only, Python 3.8 syntax: the doctor lends it nothing but a ``plan``. To read how text is
generated, begin with ``generate`` and ``model``; docs/generate.md walks through them.
"""
