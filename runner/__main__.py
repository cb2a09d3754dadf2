"""`python -m runner VERB`: what make calls."""

from runner.host.cli.entry import main

if __name__ == "__main__":
    main()
