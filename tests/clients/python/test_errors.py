"""Errors as the SDK shows them: the right class, type, message and request id, before and within a stream."""

import anthropic
import pytest

from scripted import API_KEY, DEADLINE_MS, THROUGH_GATEWAY, ask, simulate


def refused(client, headers, **asked):
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(**ask(**asked), extra_headers=headers)
    error = caught.value
    assert error.body["type"] == "error"
    assert error.body["error"]["message"]
    assert error.request_id and error.body["request_id"] == error.request_id
    return error


def test_a_body_the_api_would_refuse_is_a_400_that_says_why(client):
    error = refused(client, simulate(), messages=[{"role": "assistant", "content": "hello"}])
    assert isinstance(error, anthropic.BadRequestError)
    assert error.body["error"]["type"] == "invalid_request_error"
    assert "first message" in error.body["error"]["message"]


def test_a_tool_result_without_its_call_is_a_400(client):
    orphan = [{"type": "tool_result", "tool_use_id": "toolu_none", "content": "x"}]
    error = refused(client, simulate(), messages=[{"role": "user", "content": orphan}])
    assert isinstance(error, anthropic.BadRequestError)


def test_a_field_nobody_knows_arrives_upstream(client):
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**ask(), extra_body={"made_up_field": {"a": 1}}, extra_headers=simulate())
    assert "made_up_field" in caught.value.body["error"]["message"]


def test_a_model_that_is_not_there_is_a_404(client):
    error = refused(client, simulate(), model="claude-of-another-world")
    assert isinstance(error, anthropic.NotFoundError)
    assert "claude-of-another-world" in error.body["error"]["message"]


def test_a_body_that_is_no_json_is_a_400(plain):
    answer = plain.post("/v1/messages", content=b'{"model": ', headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("streamed", [False, True])
def test_overload_is_an_overloaded_error(client, streamed):
    # Through the gateway: retried first, then told as it is.
    headers = simulate("status:529", deadline_ms=DEADLINE_MS)
    with pytest.raises(anthropic.OverloadedError) as caught:
        client.messages.create(**ask(), stream=streamed, extra_headers=headers)
    assert caught.value.status_code == 529
    assert caught.value.body["error"]["type"] == "overloaded_error"


# Models of their own: the gateway holds back a whole class of models after a 429.
@pytest.mark.parametrize("streamed, model", [(False, "claude-opus-5"), (True, "claude-opus-5-5")])
def test_too_many_requests_is_a_refusal_with_its_retry_after(client, streamed, model):
    headers = simulate("status:429:7", deadline_ms=DEADLINE_MS)
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(**ask(model=model), stream=streamed, extra_headers=headers)
    error = caught.value
    # The upstream's quota is no fault of this client: through the gateway it is an overload.
    expected = anthropic.OverloadedError if THROUGH_GATEWAY else anthropic.RateLimitError
    assert isinstance(error, expected)
    assert 0 < float(error.response.headers["retry-after"]) <= 7


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_broken_upstream_is_an_internal_server_error(client, status):
    headers = simulate(f"status:{status}", deadline_ms=DEADLINE_MS)
    with pytest.raises(anthropic.InternalServerError) as caught:
        client.messages.create(**ask(), extra_headers=headers)
    assert caught.value.status_code >= 500
    if THROUGH_GATEWAY:
        # Even where the upstream's edge speaks HTML.
        assert caught.value.body["type"] == "error"


def test_an_error_within_a_stream_raises(client):
    headers = simulate("error-at:event-6", output_tokens=120)
    seen = []
    with pytest.raises(anthropic.APIStatusError) as caught:
        with client.messages.create(**ask(), stream=True, extra_headers=headers) as stream:
            for event in stream:
                seen.append(event.type)
    assert seen[0] == "message_start"
    assert caught.value.status_code == 200
    assert caught.value.body["error"]["type"] == "overloaded_error"


@pytest.mark.parametrize("place", ["event-6", "in-utf8", "in-data", "before-delta", "before-stop"])
def test_an_answer_that_ends_too_early_is_an_error_only_the_gateway_shows(client, place):
    text = "Flut und Ebbe — 潮の満ち引き 🌊 " * 20
    asked = ask(text, model="echo", max_tokens=8_000)
    headers = simulate(f"end-at:{place}")
    if THROUGH_GATEWAY:
        with pytest.raises(anthropic.APIStatusError) as caught:
            with client.messages.stream(**asked, extra_headers=headers) as stream:
                stream.get_final_message()
        assert caught.value.status_code == 200
        assert caught.value.body["error"]["type"] in {"api_error", "overloaded_error"}
    elif place == "in-utf8":
        # Half a character is more than the SDK can stand.
        with pytest.raises(UnicodeDecodeError):
            with client.messages.stream(**asked, extra_headers=headers) as stream:
                stream.get_final_message()
    else:
        # The SDK takes a cut for the end: this silent loss is what the gateway is for.
        with client.messages.stream(**asked, extra_headers=headers) as stream:
            final = stream.get_final_message()
        assert final.stop_reason is None or place == "before-stop"


@pytest.mark.parametrize("cut", ["reset-at", "close-at"])
def test_a_connection_cut_within_a_stream_raises(client, cut):
    headers = simulate(f"{cut}:event-6", output_tokens=120)
    with pytest.raises(Exception) as caught:
        with client.messages.stream(**ask(), extra_headers=headers) as stream:
            stream.get_final_message()
    if THROUGH_GATEWAY:
        assert isinstance(caught.value, anthropic.APIStatusError)
        assert caught.value.body["error"]["type"] in {"api_error", "overloaded_error"}


def test_a_connection_cut_before_any_answer_is_told(client):
    with pytest.raises(anthropic.APIError) as caught:
        client.messages.create(**ask(), extra_headers=simulate("reset-before-head", deadline_ms=DEADLINE_MS))
    expected = anthropic.APIStatusError if THROUGH_GATEWAY else anthropic.APIConnectionError
    assert isinstance(caught.value, expected)


def test_a_request_without_a_key_is_a_401(plain):
    del plain.headers["x-api-key"]
    answer = plain.post("/v1/messages", json=ask())
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_wrong_key_is_an_authentication_error(client, streamed):
    with pytest.raises(anthropic.AuthenticationError) as caught:
        client.with_options(api_key="tg_of-nobody").messages.create(**ask(), stream=streamed)
    assert caught.value.body["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("header", [{"x-api-key": API_KEY}, {"authorization": f"Bearer {API_KEY}"}])
def test_a_key_is_taken_in_either_header(plain, header):
    del plain.headers["x-api-key"]
    assert plain.post("/v1/messages", json=ask(), headers=header).status_code == 200
