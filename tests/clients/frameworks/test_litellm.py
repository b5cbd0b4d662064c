"""LiteLLM's client: OpenAI's shapes in the caller's hands, the Messages API on the wire."""

import litellm
import openai
import pytest

from scripted import API_KEY, BASE_URL, DEADLINE_MS, THROUGH_GATEWAY, simulate

TOOL = {
    "type": "function",
    "function": {
        "name": "tide_at",
        "description": "Height of the tide at a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}


def complete(*faults, messages=None, text="Tell me about the tide.", model="claude-haiku-4-5", more=None, **items):
    headers = simulate(*faults, deadline_ms=DEADLINE_MS if faults and THROUGH_GATEWAY else None, **items)
    return litellm.completion(
        model=f"anthropic/{model}", api_base=BASE_URL, api_key=API_KEY, num_retries=0, max_retries=0, timeout=30,
        messages=messages or [{"role": "user", "content": text}], extra_headers=headers,
        # With tools LiteLLM looks for servers of a package that it does not install by itself.
        _skip_mcp_handler=True,
        **{"max_tokens": 1_024, **(more or {})},
    )


def pieces(stream):
    return [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]


def test_a_stream_is_the_answer_in_pieces():
    streamed = pieces(complete(output_tokens=120, seed=5, more={"stream": True}))
    whole = complete(output_tokens=120, seed=5)
    assert len(streamed) > 5
    assert "".join(streamed) == whole.choices[0].message.content
    assert whole.choices[0].finish_reason == "stop" and whole.usage.completion_tokens > 0


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_tool_call_goes_there_and_back(streamed):
    messages = [{"role": "user", "content": "How high is the tide at Brest?"}]
    more = {"tools": [TOOL], "stream": streamed}
    answer = complete(messages=messages, more=more, tool="tide_at")
    if streamed:
        answer = litellm.stream_chunk_builder(list(answer), messages=messages)
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.function.name == "tide_at" and '"place"' in call.function.arguments
    messages += [choice.message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "2.4 m"}]
    assert complete(messages=messages, more={"tools": [TOOL]}).choices[0].message.content


def test_an_overload_is_an_error_that_may_be_tried_again():
    with pytest.raises((litellm.InternalServerError, litellm.ServiceUnavailableError, litellm.Timeout)) as raised:
        complete("status:529")
    assert "overloaded" in str(raised.value).lower() or THROUGH_GATEWAY


def test_a_wrong_request_is_a_bad_request():
    with pytest.raises(litellm.BadRequestError) as raised:
        complete(more={"max_tokens": 10_000_000})
    assert "max_tokens" in str(raised.value)


def test_a_stream_that_breaks_off_is_an_error_and_no_short_answer():
    came = []
    with pytest.raises(openai.APIError):
        for chunk in complete("error-at:event-9", output_tokens=200, more={"stream": True}):
            came.append(chunk)
    assert came, "what came before it was shown"


def test_a_long_stream_comes_whole():
    text = "Ebb and flood, 潮の満ち引き 🌊. " * 1_500
    streamed = pieces(complete(text=text, model="echo", event_ms=1, more={"stream": True, "max_tokens": 60_000}))
    assert "".join(streamed) == text
    assert len(streamed) > 1_000
