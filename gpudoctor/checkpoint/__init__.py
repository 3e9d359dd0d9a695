"""What a checkpoint is, from its headers: no tensor is read and none of its code is run.

``read(path)`` recognises the format and says where each tensor lies, for the smoke test, which runs plain Llamas.
``describe(path)`` counts what any model holds (``gpudoctor/contents.py``): weights, bytes, and what its memory follows from.

One file per format (``hf``, ``meta``, ``gguf``, ``llama2c``), what they share (``found``, ``bounded``, ``layout``, ``values``), the
walk through a pickle (``pickles``, ``pth``, ``legacy``), and where the words are (``tokenizers``). For counting: what a tensor is
for (``roles``) and how many weights it stands for (``packed``, ``counting``), and the architecture (``architectures``, ``layers``,
``families``, ``gguf_architecture``, ``meta_parts``). A checkpoint is somebody else's file: every number in it is doubted before it
is used.
"""

from __future__ import annotations

from gpudoctor.checkpoint.describe import describe
from gpudoctor.checkpoint.find import read
from gpudoctor.checkpoint.found import Checkpoint, NotACheckpoint

__all__ = ["Checkpoint", "NotACheckpoint", "describe", "read"]
