"""SIGTERM: the first is Ctrl-C, the second ends the process at once."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from augbench.runner.sigterm import Sigterm


def test_the_first_sigterm_is_a_keyboard_interrupt_and_the_handler_of_before_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with Sigterm() as sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a library might
        sigterm.arm()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        assert sigterm.received
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("is_raised", [True, False])  # False: what it raises is lost
def test_a_signal_that_ray_handles_while_it_starts_counts_too(is_raised):
    with Sigterm() as sigterm:
        with pytest.raises(KeyboardInterrupt), sigterm.while_ray_starts():
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number) if is_raised else None)
            os.kill(os.getpid(), signal.SIGTERM)
        assert sigterm.received and signal.getsignal(signal.SIGTERM) == sigterm._handle
    with pytest.raises(SystemExit), Sigterm() as sigterm, sigterm.while_ray_starts():
        raise SystemExit(1)  # Ray gives up
    assert not sigterm.received


def test_the_second_sigterm_ends_the_process_at_once():
    code = (
        "import os, signal\nfrom augbench.runner.sigterm import Sigterm\n"
        "with Sigterm():\n"
        "    try: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except KeyboardInterrupt: pass\n"
        "    try: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    finally: print('not at once', flush=True)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "", "")


def test_a_run_in_another_thread_leaves_signals_alone():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with Sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
