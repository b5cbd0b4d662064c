"""Prompts over one WebSocket, one after another, printed as they are answered.

    pip install websockets
    python websocket_prompts.py "Why is the sea salty?" "And the rivers?"

TIDEGATE_URL is where Tidegate listens; TIDEGATE_KEY is a client key, if it asks for one.
"""

import asyncio
import json
import os
import sys

import websockets


async def main(prompts):
    url = os.environ.get("TIDEGATE_URL", "http://127.0.0.1:4600").replace("http", "ws", 1)
    key = os.environ.get("TIDEGATE_KEY", "none")
    async with websockets.connect(f"{url}/v1/stream", additional_headers={"x-api-key": key}) as socket:
        for prompt in prompts:
            await socket.send(json.dumps({"prompt": prompt}))
            async for message in socket:
                answer = json.loads(message)
                if answer["event"] == "completion":
                    print(answer["text"], end="", flush=True)
                elif answer["event"] == "error":
                    sys.exit(f"{answer['type']}: {answer['message']}")
                else:
                    print(f"\n[{answer['stop_reason']}, {answer['usage']['output_tokens']} tokens]")
                    break


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["Say hello."]))
