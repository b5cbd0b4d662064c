"""Clients for the tests, and what the simulator says really happened."""

import anthropic
import httpx
import pytest

import scripted
import truth


@pytest.fixture
def client():
    """An SDK that does not retry, so that a test sees each refusal."""
    with anthropic.Anthropic(
        base_url=scripted.BASE_URL, api_key=scripted.API_KEY, max_retries=0, timeout=30
    ) as client:
        yield client


@pytest.fixture
def plain():
    """HTTP without an SDK, for what no SDK sends."""
    headers = {"x-api-key": scripted.API_KEY, "anthropic-version": "2023-06-01", **scripted.simulate()}
    with httpx.Client(base_url=scripted.BASE_URL, headers=headers, timeout=30, trust_env=False) as plain:
        yield plain


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """After each test the upstream is at rest."""
    yield
    truth.wait_for_open(0)
