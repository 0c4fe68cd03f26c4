"""A fake broker for each test, with FLUX_URI pointing to it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.fakebroker import FakeBroker


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBroker]:
    # Not tmp_path: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="fb-") as folder:
        fake = FakeBroker(Path(folder))
        monkeypatch.setenv("FLUX_URI", fake.uri)
        yield fake
        fake.close()
