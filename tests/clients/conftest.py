import pytest

from server import DEMO, Server


@pytest.fixture(scope="session")
def server():
    """One server of the demo model for all tests that only ask."""
    with Server(DEMO) as running:
        yield running
