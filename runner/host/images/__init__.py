"""The environment of a launch: locks, wheels, images by content key, virtual environments."""
