"""What one can ask for. Each verb gathers facts and builds a plan, or reads and moves what plans have left behind."""
