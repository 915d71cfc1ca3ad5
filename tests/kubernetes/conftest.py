"""One API server for all tests of a process, with our definitions; each test begins without resources."""

from collections.abc import Iterator

import pytest
from api_server import ApiServer


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    made = ApiServer(tmp_path_factory.mktemp("kubernetes"))
    try:
        made.define()
        yield made
    finally:
        made.close()


@pytest.fixture
def server(running: ApiServer) -> Iterator[ApiServer]:
    yield running
    running.clear()
