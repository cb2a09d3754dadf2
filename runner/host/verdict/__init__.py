"""Is it the same? Two runs compared level by level, and what changed between them."""
