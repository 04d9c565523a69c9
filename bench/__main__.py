"""`make bench`: whole merges with the defaults of bench/merge.py."""

from __future__ import annotations

from .merge import main

if __name__ == "__main__":
    main()
