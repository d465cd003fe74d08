"""``python -m rayprune`` is ``rayprune``."""

from rayprune.cli import main

if __name__ == "__main__":
    main()
