import pytest

from tests.surveying.surveyed_models import one_thread


@pytest.fixture(autouse=True)
def calm():
    with one_thread():
        yield
