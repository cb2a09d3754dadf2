"""The command line: entry parses and exits; the verbs stand in launches, records and needs."""
