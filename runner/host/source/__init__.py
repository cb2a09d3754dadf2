"""The source of a launch: a snapshot byte for byte, kept once, exported read-only."""
