"""LangChain's ChatAnthropic: the same answers, tool calls and errors, whoever stands between."""

import anthropic
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool

from scripted import API_KEY, BASE_URL, DEADLINE_MS, THROUGH_GATEWAY, simulate

QUESTION = "Tell me about the tide."


def model(*faults, max_tokens=1_024, name="claude-haiku-4-5", **items):
    """A model that does not retry, with a script for its answers."""
    headers = simulate(*faults, deadline_ms=DEADLINE_MS if faults and THROUGH_GATEWAY else None, **items)
    return ChatAnthropic(
        model=name, base_url=BASE_URL, api_key=API_KEY, max_tokens=max_tokens, max_retries=0, timeout=30,
        default_headers=headers,
    )


@tool
def tide_at(place: str) -> str:
    """Height of the tide at a place."""
    return f"2.4 m at {place}"


def test_a_stream_is_the_answer_in_pieces():
    pieces = list(model(output_tokens=120, seed=5).stream(QUESTION))
    whole = model(output_tokens=120, seed=5).invoke(QUESTION)
    assert len(pieces) > 5
    assert "".join(piece.text for piece in pieces) == whole.text
    total = pieces[0]
    for piece in pieces[1:]:
        total += piece
    assert total.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"] > 0
    assert total.response_metadata["stop_reason"] == "end_turn"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_tool_call_goes_there_and_back(streamed):
    messages = [HumanMessage("How high is the tide at Brest?")]
    asking = model(tool="tide_at").bind_tools([tide_at])
    if streamed:
        answer = None
        for piece in asking.stream(messages):
            answer = piece if answer is None else answer + piece
    else:
        answer = asking.invoke(messages)
    (call,) = answer.tool_calls
    assert call["name"] == "tide_at" and isinstance(call["args"]["place"], str)
    messages += [answer, ToolMessage(tide_at.invoke(call["args"]), tool_call_id=call["id"])]
    final = model().bind_tools([tide_at]).invoke(messages)
    assert final.text and not final.tool_calls


def test_an_overload_is_the_sdks_own_error():
    with pytest.raises(anthropic.APIStatusError) as raised:
        model("status:529").invoke(QUESTION)
    # Through the gateway it is repeated until the deadline, which then is what is told.
    assert raised.value.status_code in ((529, 504) if THROUGH_GATEWAY else (529,))


def test_a_wrong_request_is_a_bad_request():
    with pytest.raises(anthropic.BadRequestError) as raised:
        model(max_tokens=10_000_000).invoke(QUESTION)
    assert raised.value.body["error"]["type"] == "invalid_request_error"


def test_a_stream_that_breaks_off_is_an_error_and_no_short_answer():
    pieces = []
    with pytest.raises(anthropic.APIError):
        for piece in model("error-at:event-9", output_tokens=200).stream(QUESTION):
            pieces.append(piece)
    assert pieces, "what came before it was shown"


def test_a_long_stream_comes_whole():
    text = "Ebb and flood, 潮の満ち引き 🌊. " * 1_500
    pieces = [piece.text for piece in model(name="echo", max_tokens=60_000, event_ms=1).stream(text)]
    assert "".join(pieces) == text
    assert len(pieces) > 1_000
