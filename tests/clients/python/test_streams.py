"""Streamed answers: by the SDK's helper, event by event, and as bytes."""

import json

import pytest

from scripted import ECHO, ask, gist, simulate, text_of


def test_the_helper_accumulates_what_the_json_answer_is(client):
    headers = simulate(output_tokens=120, seed=5)
    with client.messages.stream(**ask(), extra_headers=headers) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == text_of(final)
    assert final.stop_reason == "end_turn"
    whole = client.messages.create(**ask(), extra_headers=headers)
    assert gist(final) == gist(whole)


def test_events_come_in_their_order(client):
    with client.messages.create(**ask(), stream=True, extra_headers=simulate(output_tokens=60)) as stream:
        kinds = [event.type for event in stream if event.type != "ping"]
    assert kinds[0] == "message_start"
    assert kinds[1] == "content_block_start"
    assert kinds[2:-3] == ["content_block_delta"] * (len(kinds) - 5)
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_text_arrives_byte_for_byte(client):
    text = "Ebb and flood — 潮の満ち引き 🌊 \"quoted\" \\ \n" * 40
    with client.messages.stream(**ask(text, model=ECHO, max_tokens=20_000), extra_headers=simulate()) as stream:
        assert "".join(stream.text_stream) == text
        assert text_of(stream.get_final_message()) == text


def test_text_in_packets_of_one_byte_is_the_same(client):
    text = "one byte at a time — 一つずつ 🌊"
    headers = simulate("one-byte")
    with client.messages.stream(**ask(text, model=ECHO), extra_headers=headers) as stream:
        assert "".join(stream.text_stream) == text


def test_a_stream_says_so_in_its_headers(client):
    with client.messages.with_streaming_response.create(**ask(), stream=True, extra_headers=simulate()) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["request-id"].startswith("req_")
        # What the SDK read so far is not the whole body: read on to the end.
        assert b"event: message_stop" in answer.read()


@pytest.mark.parametrize("pings", [False, True])
def test_silence_within_a_stream_is_survived(client, pings):
    headers = simulate("pings-at:event-4:400ms" if pings else "stall-at:event-4:400ms", ping_ms=50, output_tokens=60)
    with client.messages.stream(**ask(), extra_headers=headers) as stream:
        assert text_of(stream.get_final_message())
    assert stream.get_final_message().stop_reason == "end_turn"


def test_an_event_of_a_type_nobody_knows_is_passed_on(plain):
    with plain.stream("POST", "/v1/messages", json=ask(stream=True), headers=simulate("unknown-at:event-4")) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    known = {"message_start", "message_delta", "message_stop", "ping", "error"}
    known |= {f"content_block_{step}" for step in ("start", "delta", "stop")}
    assert [event for event in events if event["type"] not in known]
    assert events[-1]["type"] == "message_stop"


def test_the_helper_is_not_disturbed_by_such_an_event(client):
    with client.messages.stream(**ask(), extra_headers=simulate("unknown-at:event-4")) as stream:
        assert stream.get_final_message().stop_reason == "end_turn"


def test_thinking_has_its_signature_and_comes_before_the_text(client):
    asked = ask(max_tokens=4_000, thinking={"type": "enabled", "budget_tokens": 2_000})
    headers = simulate(thinking_tokens=80, output_tokens=40, seed=3)
    with client.messages.stream(**asked, extra_headers=headers) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert final.content[0].thinking and final.content[0].signature
    whole = client.messages.create(**asked, extra_headers=headers)
    assert gist(whole) == gist(final)


def test_thinking_goes_back_unchanged_and_is_taken(client):
    thinking = {"type": "enabled", "budget_tokens": 2_000}
    asked = ask(max_tokens=4_000, thinking=thinking)
    with client.messages.stream(**asked, extra_headers=simulate(thinking_tokens=40)) as stream:
        first = stream.get_final_message()
    content = [block.model_dump(exclude_none=True, exclude={"parsed_output"}) for block in first.content]
    turns = [*asked["messages"], {"role": "assistant", "content": content}, {"role": "user", "content": "And?"}]
    second = client.messages.create(**{**asked, "messages": turns}, extra_headers=simulate())
    assert second.stop_reason == "end_turn"


def test_newer_models_think_by_themselves(client):
    asked = ask(model="claude-sonnet-5-5", thinking={"type": "adaptive", "display": "summarized"})
    with client.messages.stream(**asked, extra_headers=simulate(thinking_tokens=40)) as stream:
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn"
    assert all(block.signature for block in final.content if block.type == "thinking")
