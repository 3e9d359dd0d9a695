"""What a checkpoint is, from its headers: no tensor is read and none of its code is run.

``read(path)`` recognises the format and says where each tensor lies. One file per format (``hf``, ``meta``, ``gguf``, ``llama2c``),
what they share (``found``, ``bounded``, ``layout``, ``values``), the walk through a pickle (``pickles``, ``pth``), and where the
words are (``tokenizers``). A checkpoint is somebody else's file: every number in it is doubted before it is used.
"""

from __future__ import annotations

from gpudoctor.checkpoint.find import read
from gpudoctor.checkpoint.found import Checkpoint, NotACheckpoint

__all__ = ["Checkpoint", "NotACheckpoint", "read"]
