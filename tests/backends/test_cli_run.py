"""What the commands that train share: Ctrl-C and SIGTERM end a run after its step."""

import os
import signal

import pytest

from flash_pack.flash_modules.cli.run import stop_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_told_and_a_second_one_ends_it_at_once(number: int) -> None:
    before = signal.getsignal(number)
    with stop_signals() as stopped:
        assert not stopped()
        os.kill(os.getpid(), number)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
