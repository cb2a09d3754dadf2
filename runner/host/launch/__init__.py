"""The heart: facts become a plan, a plan becomes an outcome."""
