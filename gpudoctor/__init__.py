"""gpudoctor: why a machine cannot run a language model on its NVIDIA GPU, and the one step that cures it."""

__version__ = "0.1.0"
