"""A client that goes away: the upstream stops at once, and nothing is left."""

import asyncio

import anthropic
import httpx
import pytest

import truth
from scripted import API_KEY, BASE_URL, ECHO, THROUGH_GATEWAY, ask, simulate, text_of

# Would take minutes if nobody stopped it.
LONG = simulate(output_tokens=20_000, event_ms=50)


def upstream_stopped():
    """The simulator saw its client leave, and stopped working for it at once."""
    truth.wait_for_open(0, within_s=1.0)
    request = truth.last_request()
    assert request["left_ms"] is not None, "the simulator played the answer to its end"
    assert request["closing_us"] < 100_000
    assert request["produced_tokens"] < 2_000


def test_closing_a_stream_stops_the_upstream(client):
    with client.messages.create(**ask(max_tokens=60_000), stream=True, extra_headers=LONG) as stream:
        for _, event in zip(range(5), stream):
            assert event.type != "error"
        assert truth.now()["open_streams"] == 1
    upstream_stopped()


def test_leaving_the_helper_early_stops_the_upstream(client):
    with client.messages.stream(**ask(max_tokens=60_000), extra_headers=LONG) as stream:
        next(iter(stream.text_stream))
        assert truth.now()["open_streams"] == 1
    upstream_stopped()


def test_giving_up_on_a_whole_answer_stops_the_upstream(plain):
    with pytest.raises(httpx.ReadTimeout):
        plain.post("/v1/messages", json=ask(max_tokens=60_000), timeout=0.5, headers=LONG)
    upstream_stopped()


def test_the_sdks_timeout_stops_the_upstream(client):
    # The SDK tells its timeout in a header, so the gateway may be first to say that it is over.
    with pytest.raises(anthropic.APIError) as caught:
        client.messages.create(**ask(max_tokens=60_000), timeout=0.5, extra_headers=LONG)
    if not isinstance(caught.value, anthropic.APITimeoutError):
        assert THROUGH_GATEWAY and caught.value.status_code == 504
    upstream_stopped()


def test_a_cancelled_task_stops_the_upstream():
    async def main():
        async with anthropic.AsyncAnthropic(base_url=BASE_URL, api_key=API_KEY, max_retries=0) as client:
            began = asyncio.Event()

            async def read():
                async with client.messages.stream(**ask(max_tokens=60_000), extra_headers=LONG) as stream:
                    async for _ in stream:
                        began.set()

            task = asyncio.create_task(read())
            await asyncio.wait_for(began.wait(), timeout=10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    upstream_stopped()


def test_fifty_streams_at_once_do_not_mix():
    async def main():
        async with anthropic.AsyncAnthropic(base_url=BASE_URL, api_key=API_KEY, max_retries=0, timeout=60) as client:

            async def one(n):
                text = f"stream {n}: " + f"<{n}>" * 100
                asked = ask(text, model=ECHO, max_tokens=8_000)
                async with client.messages.stream(**asked, extra_headers=simulate(event_ms=5)) as stream:
                    pieces = [piece async for piece in stream.text_stream]
                    final = await stream.get_final_message()
                assert "".join(pieces) == text == text_of(final)
                assert len(pieces) > 1

            await asyncio.gather(*(one(n) for n in range(50)))

    asyncio.run(main())
    assert truth.now()["open"] == 0
    assert truth.now()["peak_streams"] > 10
