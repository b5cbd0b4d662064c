"""What really happened, as the simulator's ground truth tells it on its side port."""

import os
import time

import httpx

URL = os.environ["TIDEGATE_TRUTH_URL"]


def now():
    """The whole truth."""
    answer = httpx.get(URL, timeout=5, trust_env=False)
    answer.raise_for_status()
    return answer.json()


def streams_open():
    """Answers the upstream is producing now."""
    return now()["streams"]["open"]


def wait_for_streams_open(wanted, within_s=1.0):
    """Waits until so many answers are being produced; they must be within the time."""
    until = time.monotonic() + within_s
    while True:
        count = streams_open()
        if count == wanted:
            return
        assert time.monotonic() < until, f"{count} streams are open upstream, not {wanted}, after {within_s} s"
        time.sleep(0.02)
