"""The tool loop: call, result, answer, whole and streamed."""

import pytest

from scripted import ask, gist, simulate, text_of

TOOL = {
    "name": "tide_at",
    "description": "Height of the tide at a place.",
    "input_schema": {
        "type": "object",
        "properties": {"place": {"type": "string"}, "metres": {"type": "boolean"}},
        "required": ["place"],
    },
}


def one_answer(client, streamed, asked, headers):
    if not streamed:
        return client.messages.create(**asked, extra_headers=headers)
    with client.messages.stream(**asked, extra_headers=headers) as stream:
        return stream.get_final_message()


def results_for(message):
    calls = [block for block in message.content if block.type == "tool_use"]
    return [{"type": "tool_result", "tool_use_id": call.id, "content": "2.4 m"} for call in calls]


@pytest.mark.parametrize("streamed", [False, True])
def test_the_loop_ends_in_an_answer(client, streamed):
    asked = ask("How high is the tide at Brest?", tools=[TOOL])
    message = one_answer(client, streamed, asked, simulate(tool="tide_at"))
    assert message.stop_reason == "tool_use"
    call = next(block for block in message.content if block.type == "tool_use")
    assert call.name == "tide_at" and call.id.startswith("toolu_")
    assert isinstance(call.input, dict) and "place" in call.input

    turns = list(asked["messages"])
    for _ in range(4):
        content = [block.model_dump(exclude_none=True, exclude={"parsed_output"}) for block in message.content]
        turns += [{"role": "assistant", "content": content}, {"role": "user", "content": results_for(message)}]
        message = one_answer(client, streamed, {**asked, "messages": turns}, simulate())
        if message.stop_reason != "tool_use":
            break
    assert message.stop_reason == "end_turn"
    assert text_of(message)


def test_a_streamed_call_is_the_call_of_the_json_answer(client):
    asked, headers = ask(tools=[TOOL]), simulate(tool="tide_at", seed=21)
    assert gist(one_answer(client, True, asked, headers)) == gist(one_answer(client, False, asked, headers))


def test_pieces_of_the_input_add_up_to_it(client):
    with client.messages.stream(**ask(tools=[TOOL]), extra_headers=simulate(tool="tide_at")) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        call = next(block for block in stream.get_final_message().content if block.type == "tool_use")
    assert "".join(pieces).strip().startswith("{")
    assert isinstance(call.input, dict) and call.input
