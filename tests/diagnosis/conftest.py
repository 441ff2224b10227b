"""Tests with one thread, as those of surveys."""

from tests.surveying.conftest import calm as calm
