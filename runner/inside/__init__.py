"""What runs inside a launch, whatever the framework: the supervisor and a torch-free report helper."""
