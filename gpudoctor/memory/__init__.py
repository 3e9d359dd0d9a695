"""The memory that a model needs on a GPU, part by part; whether it fits; what to do if not. Arithmetic only: nothing is asked.

``model`` is what is counted, ``need`` the words, ``runtimes`` the sums of each program, ``verdict`` the answer, ``options`` the
ways out. docs/memory.md derives every sum and says how far each was from what was measured.
"""
