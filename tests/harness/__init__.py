"""Recorded machines: read from JSON, rebuilt in a folder, examined by the real command line."""
