import socket
import warnings
from contextlib import contextmanager

import pytest


@pytest.fixture
def silent_and_offline(monkeypatch, capfd):
    """A context in which asking the network, a warning or output fails the test."""

    def no_network(*_):
        raise AssertionError("asked the network")

    @contextmanager
    def checked():
        monkeypatch.setattr(socket.socket, "connect", no_network)
        monkeypatch.setattr(socket, "getaddrinfo", no_network)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
        assert "".join(capfd.readouterr()) == ""

    return checked


@pytest.fixture
def hub(monkeypatch):
    """Let the hub's cache be a folder, given to the returned function. It returns the recorded requests."""
    asked = []

    def filled(cached):
        def snapshot_download(repository, **options):
            asked.append((repository, options))
            return str(cached)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        return asked

    return filled
