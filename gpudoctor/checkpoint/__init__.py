"""What a checkpoint is, from its headers: no tensor is read and none of its code is run."""
