"""The programs of `examples/` do what they say, against a running gateway."""

import os
import pathlib
import subprocess
import sys

import pytest

from scripted import API_KEY, BASE_URL, THROUGH_GATEWAY

pytestmark = pytest.mark.skipif(not THROUGH_GATEWAY, reason="the API itself has no WebSocket")

EXAMPLES = pathlib.Path(__file__).resolve().parents[3] / "examples"


def run(name, *arguments, **environment):
    """What an example prints."""
    environment = {**os.environ, "TIDEGATE_URL": BASE_URL, "TIDEGATE_KEY": API_KEY, **environment}
    command = [sys.executable, "-B", str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    return done


def test_prompts_are_answered_one_after_another():
    done = run("websocket_prompts.py", "first", "second")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("[end_turn, ") == 2, done.stdout


def test_a_refusal_is_told():
    done = run("websocket_prompts.py", " ")
    assert done.returncode == 1
    assert "invalid_request_error: prompt: " in done.stderr, done.stderr


def test_conversations_are_in_flight_together():
    done = run("websocket_conversations.py")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 20 and all(line.split(": ", 1)[1] for line in lines), done.stdout
