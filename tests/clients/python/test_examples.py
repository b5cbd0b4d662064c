"""The programs of `examples/python` do what they say, against a running gateway."""

import os
import pathlib
import subprocess
import sys

import pytest

from scripted import API_KEY, BASE_URL, THROUGH_GATEWAY

pytestmark = pytest.mark.skipif(not THROUGH_GATEWAY, reason="they talk to a gateway")

EXAMPLES = pathlib.Path(__file__).resolve().parents[3] / "examples" / "python"


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


def test_an_answer_is_streamed():
    done = run("streaming.py", "What is a tide?")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 40 and "\n[end_turn, " in done.stdout, done.stdout


def test_a_stream_that_was_cut_is_read_to_its_end():
    done = run("resume.py")
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.split("\n-- cut, and back again --\n")
    assert len(before) > 10 and len(after) > 20 and after.endswith("\n[whole]\n"), done.stdout


def test_a_conversation_is_kept():
    done = run("conversation.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" has 2 turns]\n"), done.stdout


def test_who_waits_is_served_and_what_is_late_is_told_so():
    done = run("priority.py")
    assert done.returncode == 0, done.stderr
    words = [line.split() for line in done.stdout.splitlines()]
    served = sorted(word[0] for word in words if word[2] == "tokens")
    assert served == ["background"] * 5 + ["interactive"], done.stdout
    late = run("priority.py", "20").stdout
    assert "interactive 504 deadline_passed after" in late, late
