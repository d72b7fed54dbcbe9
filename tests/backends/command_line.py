"""Commands as the tests run them."""

from collections.abc import Mapping

from flash_pack.flash_modules import cli


def run_command(command: str, arguments: Mapping[str, object], *flags: str) -> int:
    """Its exit status. An argument that is None is left out, and a list is given value by value."""
    words = [command]
    for name, value in arguments.items():
        for one in value if isinstance(value, list) else [value]:
            words += [] if one is None else [f"--{name}", str(one)]
    return cli.main([*words, *flags])


def sentence_of(said: str) -> str:
    """The one sentence of a mistake, the last line of what was said on stderr."""
    assert "Traceback" not in said
    error = said.strip().splitlines()[-1]
    assert error.startswith("error: ")
    return error
