"""The fake broker of the client's tests, for commands; and no terminal around them."""

from __future__ import annotations

import pytest

from tests.client.conftest import broker as broker
from tests.client.conftest import family as family


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids print as ƒ…, formats are the built-in ones, whatever the tester's environment says."""
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    for name in (
        "FLUX_F58_FORCE_ASCII",
        "FLUX_JOBS_FORMAT_DEFAULT",
        "FLUX_PGREP_FORMAT_DEFAULT",
        "FLUX_RESOURCE_LIST_FORMAT_DEFAULT",
        "FLUX_KVS_NAMESPACE",
        "FLUX_JOB_ID",
        "COLUMNS",
    ):
        monkeypatch.delenv(name, raising=False)
