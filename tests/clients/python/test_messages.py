"""Answers in one piece: `POST /v1/messages` without `stream`."""

import pytest

import truth
from scripted import ECHO, THROUGH_GATEWAY, ask, simulate, text_of


def test_an_answer_has_content_usage_and_a_request_id(client):
    message = client.messages.create(**ask(), extra_headers=simulate(output_tokens=40))
    assert message.type == "message" and message.role == "assistant"
    assert message.stop_reason == "end_turn"
    assert text_of(message)
    assert message.usage.input_tokens > 0 and message.usage.output_tokens > 0
    assert message.id.startswith("msg_")
    assert message._request_id.startswith("req_")


def test_the_gateway_adds_its_own_request_id_and_keeps_the_upstreams(client):
    raw = client.messages.with_raw_response.create(**ask(), extra_headers=simulate())
    assert raw.headers["request-id"].startswith("req_")
    assert ("tidegate-request-id" in raw.headers) == THROUGH_GATEWAY
    assert "x-api-key" not in raw.headers and "authorization" not in raw.headers


def test_what_arrives_is_what_the_upstream_produced(client):
    message = client.messages.create(**ask(), extra_headers=simulate(output_tokens=200))
    produced = truth.request(message._request_id)
    assert text_of(message) == produced["text"]
    assert message.id == produced["message_id"]
    assert message.usage.output_tokens == produced["usage"]["output_tokens"]


def test_the_clients_key_stays_with_the_gateway(client):
    # The simulator reads the organisation out of the key: that of `sk-ant-client-1` is `client`.
    message = client.messages.create(**ask(), extra_headers=simulate())
    assert (truth.request(message._request_id)["organisation"] == "client") != THROUGH_GATEWAY


def test_the_echo_model_repeats_the_last_user_text(client):
    text = "Ebb and flood — 潮の満ち引き 🌊 \\u0041 \"quoted\"\nnew line\ttab"
    message = client.messages.create(**ask(text, model=ECHO), extra_headers=simulate())
    assert text_of(message) == text


def test_max_tokens_is_a_reason_to_stop_and_is_said(client):
    message = client.messages.create(**ask(max_tokens=10), extra_headers=simulate(output_tokens=200))
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens <= 10


def test_a_long_answer_in_one_piece_is_whole(client):
    headers = simulate(output_tokens=8_000, first_ms=500, event_ms=1)
    message = client.messages.create(**ask(max_tokens=60_000), timeout=120, extra_headers=headers)
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens >= 7_000
    assert len(text_of(message)) > 7_000


def test_the_same_request_with_the_same_seed_has_the_same_answer(client):
    first, second = (client.messages.create(**ask(), extra_headers=simulate(seed=11)) for _ in range(2))
    assert text_of(first) == text_of(second)


@pytest.mark.parametrize("beta", ["made-up-2031-01-01", "made-up-2031-01-01,other-2030-01-01"])
def test_betas_nobody_knows_are_no_obstacle(client, beta):
    message = client.messages.create(**ask(), extra_headers={**simulate(), "anthropic-beta": beta})
    assert message.stop_reason == "end_turn"


def test_the_beta_methods_work(client):
    # SDKs of the 0.x line add `?beta=true` to the path here.
    message = client.beta.messages.create(**ask(), betas=["context-management-2025-06-27"], extra_headers=simulate())
    assert message.stop_reason == "end_turn"


def test_beta_true_in_the_path_changes_nothing(plain):
    answer = plain.post("/v1/messages?beta=true", json=ask())
    assert answer.status_code == 200
    assert answer.json()["type"] == "message"


def test_a_system_prompt_and_many_turns_are_taken(client):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    message = client.messages.create(**ask(system="Be brief.", messages=turns, model=ECHO), extra_headers=simulate())
    assert text_of(message) == "c"


def test_a_large_request_body_is_taken(client):
    text = "tide " * 100_000
    message = client.messages.create(**ask(text), extra_headers=simulate(output_tokens=20))
    assert message.usage.input_tokens > 50_000
