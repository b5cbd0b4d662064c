"""Conversations that the gateway keeps: a header and what is new, and a retry is never a second turn."""

import time
import uuid

import anthropic
import pytest

import truth
from lossy import lossy
from scripted import API_KEY, ECHO, THROUGH_GATEWAY, ask, simulate, text_of
from test_tools import TOOL, results_for

pytestmark = pytest.mark.skipif(not THROUGH_GATEWAY, reason="the API itself keeps no conversations")

both_ways = pytest.mark.parametrize("streamed", [False, True])


@pytest.fixture
def name():
    """A conversation nobody has."""
    return f"python-{uuid.uuid4()}"


def say(client, name, asked, streamed=False, scripted=None, **lines):
    """A turn: the message, and the headers it came with."""
    headers = {**(scripted or simulate()), "tidegate-conversation": name}
    headers |= {f"tidegate-{key}": str(value) for key, value in lines.items()}
    if streamed:
        with client.messages.stream(**asked, extra_headers=headers) as stream:
            return stream.get_final_message(), stream.response.headers
    raw = client.messages.with_raw_response.create(**asked, extra_headers=headers)
    return raw.parse(), raw.headers


def door(client, name, rest=""):
    """What a door of the conversation says, by the SDK's own way to paths it does not know."""
    return client.get(f"/v1/conversations/{name}{rest}", cast_to=object)


def turns(client, name):
    return door(client, name, "/turns?limit=1000")["data"]


def kept(client, name):
    """The same, or nothing while there is no such conversation."""
    try:
        return turns(client, name)
    except anthropic.NotFoundError:
        return []


def sent_back(message):
    """An answer as a client that keeps its own history sends it back."""
    content = [block.model_dump(exclude_none=True, exclude={"parsed_output"}) for block in message.content]
    return {"role": "assistant", "content": content}


def code_of(caught):
    return caught.value.body["error"]["details"]["error_code"]


@both_ways
def test_only_what_is_new_is_sent_and_the_model_gets_all_of_it(client, name, streamed):
    seen = []
    for number, text in enumerate(["My order is 7741. " * 50, "Where is it?", "And when?"], start=1):
        message, headers = say(client, name, ask(text, model=ECHO), streamed)
        assert headers["tidegate-conversation"] == name
        assert headers["tidegate-turn"] == str(number)
        assert "tidegate-replayed" not in headers
        assert text_of(message) == text
        usage = message.usage
        seen.append(usage.input_tokens + (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0))
    # The second and third say little and carry the first.
    assert seen[2] > seen[1] > 1.5 * seen[0] > 200

    stored = turns(client, name)
    assert [turn["number"] for turn in stored] == [1, 2, 3]
    assert [turn["status"] for turn in stored] == ["complete"] * 3
    assert [len(turn["messages"]) for turn in stored] == [1, 1, 1]
    assert stored[2]["answer"]["content"][0]["text"] == "And when?"
    assert stored[2]["usage"]["output_tokens"] == message.usage.output_tokens


@both_ways
def test_the_whole_history_may_be_sent_each_time(client, name, streamed):
    messages = []
    for number in range(1, 5):
        messages.append({"role": "user", "content": f"Question {number}?"})
        asked = ask(messages=list(messages), max_tokens=4_000, thinking={"type": "enabled", "budget_tokens": 2_000})
        message, headers = say(client, name, asked, streamed, simulate(thinking_tokens=20, output_tokens=20))
        assert headers["tidegate-turn"] == str(number)
        messages.append(sent_back(message))
    stored = turns(client, name)
    assert [turn["messages"] for turn in stored] == [[messages[n]] for n in (0, 2, 4, 6)]


def test_another_history_is_a_conflict_that_says_where(client, name):
    first = {"role": "user", "content": "One?"}
    message, _ = say(client, name, ask(messages=[first], model=ECHO))
    other = [{**first, "content": "Two?"}, sent_back(message), {"role": "user", "content": "Three?"}]
    with pytest.raises(anthropic.ConflictError) as caught:
        say(client, name, ask(messages=other, model=ECHO))
    assert code_of(caught) == "conversation_diverged"
    assert len(turns(client, name)) == 1


@both_ways
def test_a_retry_of_the_sdk_gets_the_turn_that_is_there(client, name, streamed):
    with lossy(1) as (url, passed):
        with anthropic.Anthropic(base_url=url, api_key=API_KEY, max_retries=2, timeout=30) as retrying:
            before = truth.now()["requests"]
            message, headers = say(retrying, name, ask(), streamed, simulate(output_tokens=60))
            assert passed == [("0", 200, True), ("1", 200, False)]
            assert truth.now()["requests"] == before + 1, "a model was asked twice"
            assert (headers["tidegate-turn"], headers["tidegate-replayed"]) == ("1", "true")
    stored = turns(client, name)
    assert len(stored) == 1
    assert text_of(message) and text_of(message) == stored[0]["answer"]["content"][0]["text"]
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == stored[0]["usage"]["output_tokens"]


def test_saying_the_same_twice_is_two_turns(client, name):
    for number in (1, 2):
        _, headers = say(client, name, ask("Yes.", model=ECHO))
        assert headers["tidegate-turn"] == str(number)
    assert len(turns(client, name)) == 2


def test_a_turn_asked_for_by_its_number_is_that_turn(client, name):
    first, _ = say(client, name, ask("Yes."), turn=1)
    again, headers = say(client, name, ask("Yes."), turn=1)
    assert headers["tidegate-replayed"] == "true"
    assert again.id == first.id and text_of(again) == text_of(first)
    assert len(turns(client, name)) == 1


@both_ways
def test_a_turn_out_of_order_is_a_conflict_that_the_sdk_does_not_retry(name, streamed):
    with lossy(0) as (url, passed):
        with anthropic.Anthropic(base_url=url, api_key=API_KEY, max_retries=2, timeout=30) as client:
            say(client, name, ask(model=ECHO), streamed, turn=1)
            with pytest.raises(anthropic.ConflictError) as caught:
                say(client, name, ask("Something else.", model=ECHO), streamed, turn=1)
            assert code_of(caught) == "turn_conflict"
            assert caught.value.body["error"]["type"] == "conflict_error"
            assert passed == [("0", 200, False), ("0", 409, False)]
            _, headers = say(client, name, ask("Something else.", model=ECHO), streamed, turn=2)
            assert headers["tidegate-turn"] == "2"


@both_ways
def test_a_tool_is_called_in_one_turn_and_answered_in_the_next(client, name, streamed):
    asked = ask("How high is the tide at Brest?", tools=[TOOL])
    message, _ = say(client, name, asked, streamed, simulate(tool="tide_at"))
    assert message.stop_reason == "tool_use"

    # Without the result the call would stand open: the API would refuse it, and so does the gateway.
    with pytest.raises(anthropic.BadRequestError):
        say(client, name, ask("Never mind.", tools=[TOOL]), streamed)

    for _ in range(4):
        results = [{"role": "user", "content": results_for(message)}]
        message, headers = say(client, name, ask(messages=results, tools=[TOOL]), streamed)
        if message.stop_reason != "tool_use":
            break
    assert message.stop_reason == "end_turn" and text_of(message)
    # And on from there, with what is new alone.
    after, headers = say(client, name, ask("Thanks.", tools=[TOOL], model=ECHO), streamed)
    assert text_of(after) == "Thanks."
    assert len(turns(client, name)) == int(headers["tidegate-turn"])


def test_whoever_leaves_finds_the_turn_interrupted_and_goes_on(client, name):
    headers = {**simulate(output_tokens=20_000, event_ms=20), "tidegate-conversation": name}
    words = ""
    with client.messages.stream(**ask(max_tokens=60_000), extra_headers=headers) as stream:
        for piece in stream.text_stream:
            words += piece
            if len(words) > 50:
                break
    until = time.monotonic() + 5
    while not (stored := kept(client, name)):
        assert time.monotonic() < until, "the turn is not kept"
        time.sleep(0.02)
    assert [turn["status"] for turn in stored] == ["interrupted"]
    assert stored[0]["answer"]["content"][0]["text"].startswith(words[:50])
    message, headers = say(client, name, ask("Go on.", model=ECHO))
    assert (headers["tidegate-turn"], text_of(message)) == ("2", "Go on.")


def test_the_doors_are_reached_by_the_sdks_own_methods(client, name):
    with pytest.raises(anthropic.NotFoundError) as caught:
        door(client, name)
    assert code_of(caught) == "conversation_not_found"

    seed = {"messages": [{"role": "user", "content": "Seed."}, {"role": "assistant", "content": "Sown."}]}
    turn = client.post(f"/v1/conversations/{name}/turns", body=seed, cast_to=object)
    assert (turn["type"], turn["number"], turn["status"]) == ("turn", 1, "appended")
    message, headers = say(client, name, ask("Grown?", model=ECHO))
    assert (headers["tidegate-turn"], text_of(message)) == ("2", "Grown?")

    found = door(client, name)
    assert (found["id"], found["type"], found["turns"]) == (name, "conversation", 2)
    listed = client.get("/v1/conversations?limit=1", cast_to=object)
    assert [one["id"] for one in listed["data"]] == [name], "changed last first"
    page = door(client, name, "/turns?from=2&limit=1")
    assert [turn["number"] for turn in page["data"]] == [2] and page["has_more"] is False

    window = door(client, name, "/window?model=claude-sonnet-5-5&max_tokens=1000&messages=true")
    assert window["type"] == "window" and 0 < window["tokens"] < window["budget"]["room"]
    assert [message["role"] for message in window["messages"]] == ["user", "assistant", "user", "assistant"]

    fork = client.post(f"/v1/conversations/{name}/fork", body={"id": f"{name}-b", "turn": 1}, cast_to=object)
    assert (fork["turns"], fork["forked_from"]) == (1, {"id": name, "turn": 1})
    _, headers = say(client, f"{name}-b", ask("Elsewhere.", model=ECHO))
    assert headers["tidegate-turn"] == "2" and len(turns(client, name)) == 2

    for one in (name, f"{name}-b"):
        gone = client.delete(f"/v1/conversations/{one}", cast_to=object)
        assert (gone["type"], gone["turns"]) == ("conversation_deleted", 2)
        with pytest.raises(anthropic.NotFoundError):
            door(client, one)


def test_without_the_header_nothing_is_kept(client):
    before = client.get("/v1/conversations?limit=1000", cast_to=object)["data"]
    raw = client.messages.with_raw_response.create(**ask(model=ECHO), extra_headers=simulate())
    assert "tidegate-turn" not in raw.headers and "tidegate-conversation" not in raw.headers
    assert client.get("/v1/conversations?limit=1000", cast_to=object)["data"] == before


def test_a_history_is_trimmed_without_being_kept(client):
    long = [{"role": role, "content": f"{n} " + "tide " * 400} for n in range(40) for role in ("user", "assistant")]
    asked = ask(messages=[*long, {"role": "user", "content": "The end."}], model=ECHO, max_tokens=500)
    headers = {**simulate(), "tidegate-window": "on", "tidegate-budget": "6000"}
    raw = client.messages.with_raw_response.create(**asked, extra_headers=headers)
    usage = raw.parse().usage
    whole = client.messages.create(**asked, extra_headers=simulate()).usage
    tokens = [u.input_tokens + (u.cache_creation_input_tokens or 0) + (u.cache_read_input_tokens or 0) for u in (usage, whole)]
    assert tokens[0] < 6_000 < tokens[1] / 2
    assert text_of(raw.parse()).endswith("The end.")
    assert "tidegate-turn" not in raw.headers
