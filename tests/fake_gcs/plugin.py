"""The fixture `fake_gcs`: a server of its own for each test, with the environment of every client set to it."""

import pytest
from fake_gcs.server import FakeGcs


@pytest.fixture
def fake_gcs(monkeypatch):
    """A running fake GCS with one bucket, `test-bucket`."""
    server = FakeGcs()
    server.objects.create_bucket("test-bucket")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    with server.running():
        yield server
