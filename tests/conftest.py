"""For all tests: no deadline for a property's example, as machines are shared and noisy; and an object store."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
from object_store import CREDENTIALS, ObjectStore, running

hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """An S3 server behind a proxy that can break requests; who uses it is slow, as it takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        with running() as found:
            yield found
