"""Floor 7: second opinions that never import the machine."""
