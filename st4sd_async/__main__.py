"""``python -m st4sd_async`` is the command ``st4sd-async``."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
