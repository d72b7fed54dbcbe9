"""`python -m flash_modules`."""

try:
    from .cli import main
except ModuleNotFoundError as error:
    raise SystemExit(
        f"error: the package {error.name} is missing: install what is needed with pip install '.[headless]'"
    ) from error

raise SystemExit(main())
