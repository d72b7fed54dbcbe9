"""Commands as the tests run them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from flash_pack.flash_modules import cli
from flash_pack.flash_modules.flash.training.action_training import ActionTraining
from flash_pack.flash_modules.training.cost import Cost


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


@contextmanager
def cheap_counting() -> Iterator[None]:
    """Counting what a step takes lasts seconds; here it takes next to nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ActionTraining, "cost", lambda *_: Cost(flops=10**9, peak_bytes=10**6))
        yield
