"""The only code that touches the world. One file per source; each ``look`` returns one field of Facts.

All probes run at the same time (``examine.py``), each in a thread with a deadline of its own; whatever can hang in the
kernel or crash runs in a child process (``child.py``). A probe that hangs, crashes or meets garbage yields ``Unknown(why)``.
"""
