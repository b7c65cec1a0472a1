"""`python -m statewright.adapters.cli` is the console script `statewright`."""

from statewright.adapters.cli.main import main

if __name__ == "__main__":
    main()
