"""Run the command as ``python -m chargewatch``."""

from chargewatch.cli import main

if __name__ == "__main__":
    main()
