"""What runs on the host: it builds plans, launches them and keeps their records. Never imports torch."""
