"""A stream that survives its connection: cut in the middle, read on from the last event.

    python resume.py

With `tidegate-resume` every event has an `id:`, a cursor. Whoever has the stream's id and the last
cursor gets the rest, on any connection. Needs nothing but Python. TIDEGATE_URL is where Tidegate
listens; TIDEGATE_KEY is a client key, if it asks for one.
"""

import json
import os
import urllib.request

URL = os.environ.get("TIDEGATE_URL", "http://127.0.0.1:4600")
HEADERS = {
    "content-type": "application/json",
    "anthropic-version": "2023-06-01",
    "x-api-key": os.environ.get("TIDEGATE_KEY", "none"),
}


def open_stream(path, body=None, **headers):
    data = json.dumps(body).encode() if body else None
    return urllib.request.urlopen(urllib.request.Request(URL + path, data, {**HEADERS, **headers}), timeout=60)


def events(answer):
    """Each event with its cursor; pings have none."""
    cursor, data = None, ""
    for line in answer:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "id":
            cursor = value
        elif field == "data":
            data = value
        elif not field and data:
            yield cursor, json.loads(data)
            cursor, data = None, ""


def show(event):
    if event["type"] == "content_block_delta":
        print(event["delta"].get("text", ""), end="", flush=True)


request = {
    "model": os.environ.get("TIDEGATE_MODEL", "claude-haiku-5-5"),
    "max_tokens": 500,
    "stream": True,
    "messages": [{"role": "user", "content": "Tell me about the tide."}],
}
with open_stream("/v1/messages", request, **{"tidegate-resume": "memory"}) as answer:
    stream, last = answer.headers["tidegate-stream"], ""
    for seen, (cursor, event) in enumerate(events(answer)):
        show(event)
        last = cursor or last
        if seen == 5:
            break  # as if the connection had been lost here

print("\n-- cut, and back again --")
with open_stream(f"/v1/streams/{stream}?after={last}") as rest:
    for _, event in events(rest):
        show(event)
        if event["type"] == "error":
            raise SystemExit(event["error"]["message"])
print("\n[whole]")
