"""``python -m app`` is ``headgate``."""

from app.cli import main

if __name__ == "__main__":
    main()
