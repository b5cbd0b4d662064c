"""`tidegate chat` where people use it: on a terminal, here one of Python's own (`pty`)."""

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
import uuid

import pytest

from scripted import API_KEY, BASE_URL, THROUGH_GATEWAY

pytestmark = pytest.mark.skipif(not THROUGH_GATEWAY, reason="a chat needs a gateway, which keeps the conversation")

# The longest a chat may take to show something.
PATIENCE_S = 20
LOOKS = re.compile("\x1b\\[[012]m")


class Terminal:
    """A chat on a terminal: what is typed, and what is shown."""

    def __init__(self, name, *args, model="echo"):
        ours, theirs = pty.openpty()
        # No echo: what is shown is what the chat writes.
        mode = termios.tcgetattr(theirs)
        mode[3] &= ~termios.ECHO
        termios.tcsetattr(theirs, termios.TCSANOW, mode)
        command = [os.environ["TIDEGATE_BINARY"], "chat", "--url", BASE_URL, "--conversation", name]
        command += ["--model", model, *args]
        env = {**os.environ, "TIDEGATE_API_KEY": API_KEY, "TERM": "xterm"}
        env.pop("NO_COLOR", None)
        self.chat = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True,
            # The terminal is the chat's own: what is typed as ^C reaches it as a signal.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.ours, self.shown = ours, ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.chat.poll() is None:
            self.chat.kill()
        self.chat.wait()
        os.close(self.ours)

    def type(self, text):
        os.write(self.ours, text.encode())

    def read(self):
        """Takes what is shown now; false once the terminal is nobody's any more."""
        ready, _, _ = select.select([self.ours], [], [], 0.1)
        if ready:
            try:
                self.shown += os.read(self.ours, 65536).decode()
            except OSError:
                return False
        return True

    def shows(self, text):
        """Waits until this is shown, and gives all that was shown before and with it."""
        until = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            assert time.monotonic() < until and self.read(), f"{text!r} is not in {self.shown!r}"
        at = self.shown.index(text) + len(text)
        before, self.shown = self.shown[:at], self.shown[at:]
        return before

    def end(self):
        """Waits for the end: the exit code, and what was shown last."""
        until = time.monotonic() + PATIENCE_S
        while self.read() and time.monotonic() < until:
            pass
        return self.chat.wait(PATIENCE_S), self.shown


@pytest.fixture
def name():
    return f"chat-{uuid.uuid4()}"


def test_a_person_is_shown_a_prompt_an_answer_and_its_tokens(name):
    with Terminal(name) as terminal:
        terminal.shows("> ")
        terminal.type("The tide comes in.\n")
        shown = terminal.shows("The tide comes in.")
        assert not LOOKS.search(shown.split("> ")[-1].removeprefix("\x1b[0m")), f"an answer is plain: {shown!r}"
        note = terminal.shows("> ")
        assert "\x1b[2m" in note and "turn 1" in LOOKS.sub("", note), note
        terminal.type("/turns\n")
        assert "The tide comes in." in terminal.shows("> ")
        terminal.type("\x04")
        assert terminal.end()[0] == 0


def test_orders_to_the_terminal_are_shown_and_not_obeyed(name):
    with Terminal(name) as terminal:
        terminal.shows("> ")
        # What is typed passes the terminal as it is: ESC is no special character of a line.
        terminal.type("\x1b]0;title\x07 \x1b[2J\n")
        shown = terminal.shows("turn 1")
        assert "\\u{1b}]0;title\\u{7}" in shown and "\\u{1b}[2J" in shown, shown
        assert "\x1b]" not in shown and "\x1b[2J" not in shown, shown


def test_ctrl_c_stops_the_answer_and_not_the_chat_and_a_second_person_goes_on(name):
    with Terminal(name, "--max-tokens", "4000", model="claude-haiku-4-5") as terminal:
        terminal.shows("> ")
        terminal.type("Tell me much.\n")
        until = time.monotonic() + PATIENCE_S
        while len(LOOKS.sub("", terminal.shown)) < 40:
            assert time.monotonic() < until and terminal.read(), terminal.shown
        terminal.type("\x03")
        terminal.shows("> ")
        assert terminal.chat.poll() is None, "the chat goes on"
        terminal.type("/quit\n")
        assert terminal.end()[0] == 0
    with Terminal(name) as terminal:
        terminal.shows("> ")
        terminal.type("And then?\n")
        terminal.shows("And then?")
        assert "turn 2" in LOOKS.sub("", terminal.shows("> "))
        # The terminal is closed under it.
        terminal.chat.send_signal(signal.SIGHUP)
        terminal.end()
