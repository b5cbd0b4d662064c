"""Several conversations at once over one WebSocket, so many in flight and no more.

    pip install websockets
    python websocket_conversations.py

Each conversation asks its questions one after another; all share one socket, and a stream that
breaks off with the socket goes on over the next one, where it stopped. TIDEGATE_URL is where
Tidegate listens; TIDEGATE_KEY is a client key, if it asks for one.
"""

import asyncio
import itertools
import json
import os

import websockets

MODEL = os.environ.get("TIDEGATE_MODEL", "claude-sonnet-5-5")
IN_FLIGHT = 8


class Tidegate:
    """One socket, many streams: whoever asks gets the events of its own stream."""

    def __init__(self, socket):
        self.socket = socket
        self.streams = {}
        self.ids = (f"s{n}" for n in itertools.count())
        self.reader = asyncio.create_task(self.read())

    async def read(self):
        try:
            async for message in self.socket:
                frame = json.loads(message)
                if frame.get("id") in self.streams:
                    self.streams[frame["id"]].put_nowait(frame)
        finally:
            for queue in self.streams.values():
                queue.put_nowait({"type": "lost"})

    async def stream(self, **frame):
        """The frames of one stream, to its last."""
        name = next(self.ids)
        queue = self.streams[name] = asyncio.Queue()
        try:
            await self.socket.send(json.dumps({"id": name, **frame}))
            while True:
                frame = await queue.get()
                yield frame
                if frame["type"] in ("stream.end", "stream.error", "lost"):
                    return
        finally:
            del self.streams[name]


class Line:
    """A socket that is opened when it is needed, and again when it was lost."""

    def __init__(self):
        self.lock = asyncio.Lock()
        self.tidegate = None

    async def up(self):
        async with self.lock:
            if self.tidegate is None or self.tidegate.reader.done():
                url = os.environ.get("TIDEGATE_URL", "http://127.0.0.1:4600").replace("http", "ws", 1)
                key = os.environ.get("TIDEGATE_KEY", "none")
                self.tidegate = Tidegate(
                    await websockets.connect(
                        f"{url}/v1/stream", subprotocols=["tidegate.v1"], additional_headers={"x-api-key": key}
                    )
                )
            return self.tidegate

    async def close(self):
        if self.tidegate is not None:
            await self.tidegate.socket.close()
            await self.tidegate.reader


async def answer(line, messages):
    """The text of the model's answer, whatever becomes of the socket meanwhile."""
    request = {"model": MODEL, "max_tokens": 500, "messages": messages}
    text, stream, cursor = "", None, None
    ask = {"type": "message.create", "request": request, "resume": "memory"}
    for _ in range(5):
        tidegate = await line.up()
        if stream:
            ask = {"type": "stream.resume", "stream": stream} | ({"after": cursor} if cursor else {})
        try:
            async for frame in tidegate.stream(**ask):
                if frame["type"] == "stream.open":
                    stream = frame["stream"]
                elif frame["type"] == "stream.event":
                    cursor = frame["cursor"]
                    text += frame["event"].get("delta", {}).get("text", "")
                elif frame["type"] == "stream.error":
                    raise RuntimeError(frame["error"]["message"])
                elif frame["type"] == "stream.end":
                    return text
        except websockets.ConnectionClosed:
            pass
        await asyncio.sleep(1)
    raise RuntimeError("the connection was lost five times")


async def conversation(line, limit, topic):
    messages = []
    for question in (f"What is {topic}?", "Say that in one sentence."):
        messages.append({"role": "user", "content": question})
        async with limit:
            text = await answer(line, messages)
        messages.append({"role": "assistant", "content": text})
    return text


async def main():
    line, limit = Line(), asyncio.Semaphore(IN_FLIGHT)
    topics = [f"topic {n}" for n in range(20)]
    answers = await asyncio.gather(*(conversation(line, limit, topic) for topic in topics))
    for topic, text in zip(topics, answers):
        print(f"{topic}: {' '.join(text.split())[:60]}")
    await line.close()


if __name__ == "__main__":
    asyncio.run(main())
