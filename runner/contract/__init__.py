"""What the host and the code inside a container agree on: files, names and variables. Standard library and PyYAML only."""
