"""``python -m barcast``."""

from barcast.cli.app import main

if __name__ == "__main__":
    main()
