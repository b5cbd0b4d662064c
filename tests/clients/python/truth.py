"""What really happened, as the simulator's ground truth tells it on its side port."""

import os
import time

import httpx

URL = os.environ["TIDEGATE_TRUTH_URL"] + "/truth"


def now():
    """The counters of the whole run."""
    answer = httpx.get(URL, timeout=5, trust_env=False)
    answer.raise_for_status()
    return answer.json()


def last_request():
    """What is known of the newest request."""
    answer = httpx.get(URL + "/requests", params={"limit": 1}, timeout=5, trust_env=False)
    answer.raise_for_status()
    return answer.json()[0]


def request(request_id):
    """What is known of this request."""
    answer = httpx.get(f"{URL}/requests/{request_id}", timeout=5, trust_env=False)
    answer.raise_for_status()
    return answer.json()


def wait_for_open(wanted, within_s=1.0):
    """Waits until so many requests are open upstream; they must be within the time."""
    until = time.monotonic() + within_s
    while True:
        count = now()["open"]
        if count == wanted:
            return
        assert time.monotonic() < until, f"{count} requests are open upstream, not {wanted}, after {within_s} s"
        time.sleep(0.02)
