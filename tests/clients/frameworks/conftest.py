"""What these suites share with that of the SDK: how an answer is scripted, and what truly happened."""

import os
import pathlib
import sys

# Nothing here asks anybody but the server under test: no list of prices, no traces.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LANGSMITH_TRACING"] = "false"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))

import pytest  # noqa: E402
import truth  # noqa: E402


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """After each test the upstream is at rest."""
    yield
    truth.wait_for_open(0)
