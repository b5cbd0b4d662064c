"""HTTP/2 over TLS, through a gateway of its own: a client that is neither an SDK nor curl."""

import json
import os
import pathlib
import shutil
import ssl
import subprocess

import httpx
import pytest

import scripted

pytestmark = pytest.mark.skipif(not scripted.THROUGH_GATEWAY, reason="once is enough")

TIDEGATE = os.environ.get("TIDEGATE_BINARY")
FREE = "127.0.0.1:0"


def certificate(folder: pathlib.Path):
    """A certificate for `localhost`, as the README makes one."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    rest = ["-extensions", "v3_req", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    rest += ["-keyout", str(key), "-out", str(cert)]
    subprocess.run(make.split() + rest, check=True, capture_output=True, timeout=30)
    return cert, key


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A client that speaks HTTP/2 over TLS with a gateway that was started for it."""
    if TIDEGATE is None or shutil.which("openssl") is None:
        pytest.fail("TIDEGATE_BINARY and openssl are needed")
    cert, key = certificate(tmp_path_factory.mktemp("tls"))
    command = [TIDEGATE, "serve", "--simulate", "--tls-cert", str(cert), "--tls-key", str(key), "--log-level", "warn"]
    for door in ("--listen", "--admin-listen", "--simulate-listen", "--truth-listen"):
        command += [door, FREE]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        port = None
        for line in server.stdout:
            if line.startswith("gateway"):
                port = int(line.rsplit(":", 1)[1])
            if line.strip() == "ready":
                break
        headers = {"x-api-key": "any", "anthropic-version": "2023-06-01", **scripted.simulate()}
        believed = ssl.create_default_context(cafile=str(cert))
        url = f"https://localhost:{port}"
        with httpx.Client(base_url=url, headers=headers, verify=believed, http2=True, timeout=30, trust_env=False) as it:
            yield it
    finally:
        server.terminate()
        assert server.wait(timeout=40) == 0


def test_a_buffered_answer_and_a_stream_say_the_same(secured):
    buffered = secured.post("/v1/messages", json=scripted.ask())
    assert (buffered.http_version, buffered.status_code) == ("HTTP/2", 200)
    want = "".join(block["text"] for block in buffered.json()["content"] if block["type"] == "text")
    with secured.stream("POST", "/v1/messages", json=scripted.ask(stream=True)) as answer:
        assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(delta.get("text", "") for delta in deltas) == want and want
    assert events[-1]["type"] == "message_stop"


def test_a_refusal_before_the_body_was_read_leaves_the_connection_usable(secured):
    for _ in range(3):
        refused = secured.post("/nowhere", content=b"x" * 300_000)
        assert (refused.http_version, refused.status_code) == ("HTTP/2", 404)
        assert refused.json()["error"]["details"]["error_code"] == "unknown_path"
    assert secured.get("/").status_code == 200
