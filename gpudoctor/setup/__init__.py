"""The setup verb: plans the sections that a diagnosis calls for, and carries them out one by one.

``plan`` chooses (pure, of facts and a diagnosis), ``script`` and the ticket of ``report`` write the plan down for others to
run, ``carry_out`` runs it: it asks, runs, verifies, looks again, and stops where a person or a restart is needed. What it
runs is the same text of ``install/`` that people read.
"""
