"""What runs a launch: the protocol, and the two engines that answer to it."""
