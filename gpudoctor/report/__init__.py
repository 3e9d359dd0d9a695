"""One renderer per reader."""
