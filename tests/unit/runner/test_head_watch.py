"""The head of a cluster is gone once its port has not answered for a while."""

import socket
import threading

from augbench.runner import head_watch


def test_a_head_that_no_longer_answers_is_lost(monkeypatch):
    monkeypatch.setattr(head_watch, "EVERY", 0.02)
    monkeypatch.setattr(head_watch, "PATIENCE", 0.1)
    lost, done = [], threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        thread = threading.Thread(target=head_watch._watch, args=(address, done, lost.append))
        thread.start()
        thread.join(0.4)
        assert thread.is_alive() and not lost
    thread.join(5)
    assert lost == [address]
    done.set()
    head_watch._watch(address, done, lost.append)  # the run has ended: no one is to be told
    assert lost == [address]
