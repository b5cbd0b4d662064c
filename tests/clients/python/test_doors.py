"""The other doors: counting, models, the root, and paths that are none."""

import gzip
import json

import anthropic
import pytest

from scripted import ECHO, MODEL, THROUGH_GATEWAY, ask, simulate

JSON = {"content-type": "application/json"}


def test_tokens_are_counted_as_they_are_billed(client):
    asked = ask("How many tokens is this? " * 20)
    counted = client.messages.count_tokens(model=asked["model"], messages=asked["messages"])
    message = client.messages.create(**asked, extra_headers=simulate())
    assert counted.input_tokens == message.usage.input_tokens


def test_more_text_is_more_tokens(client):
    few, many = (client.messages.count_tokens(model=MODEL, messages=ask("tide " * n)["messages"]) for n in (5, 500))
    assert 0 < few.input_tokens < many.input_tokens


def test_models_are_listed_in_pages(client):
    first = client.models.list(limit=3)
    assert len(first.data) == 3 and first.has_more
    everything = [model.id for model in client.models.list(limit=3)]
    assert len(everything) == len(set(everything)) > 3
    assert MODEL in {model.split("-2025")[0] for model in everything}


def test_a_model_is_retrieved_by_its_id(client):
    model = client.models.retrieve(MODEL)
    assert model.type == "model" and model.display_name


def test_a_model_that_is_not_there_is_a_404(client):
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.models.retrieve("claude-of-another-world")
    assert caught.value.body["error"]["type"] == "not_found_error"


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_the_root_answers(plain, method):
    assert plain.request(method, "/").status_code == 200


def test_a_path_that_is_none_is_a_404_in_the_apis_own_words(plain):
    answer = plain.get("/v1/no-such-door")
    assert answer.status_code == 404
    body = answer.json()
    assert body["type"] == "error" and body["error"]["type"] == "not_found_error"
    assert answer.headers["request-id"] == body["request_id"]


def test_a_method_that_is_none_is_a_405(plain):
    answer = plain.delete("/v1/messages")
    assert answer.status_code == 405
    assert answer.json()["type"] == "error"


def test_a_connection_serves_one_request_after_the_other(plain):
    for n in range(20):
        answer = plain.post("/v1/messages", json=ask(f"number {n}", model=ECHO))
        assert answer.json()["content"][0]["text"] == f"number {n}"


def test_a_body_in_chunks_is_taken(plain):
    body = json.dumps(ask("in chunks", model=ECHO)).encode()
    answer = plain.post("/v1/messages", content=(body[n : n + 7] for n in range(0, len(body), 7)), headers=JSON)
    assert answer.json()["content"][0]["text"] == "in chunks"


@pytest.mark.skipif(not THROUGH_GATEWAY, reason="the gateway inflates, the simulator need not")
def test_a_compressed_body_is_taken(plain):
    body = gzip.compress(json.dumps(ask("pressed " * 1_000, model=ECHO, max_tokens=9_000)).encode())
    answer = plain.post("/v1/messages", content=body, headers={**JSON, "content-encoding": "gzip"})
    assert answer.json()["content"][0]["text"] == "pressed " * 1_000
