"""`python -m flash_modules`."""

from .cli import main

raise SystemExit(main())
