"""A streamed answer with the official SDK: only the base URL is Tidegate's.

    pip install anthropic
    python streaming.py "Why is the sea salty?"

TIDEGATE_URL is where Tidegate listens; TIDEGATE_KEY is a client key, if it asks for one.
"""

import os
import sys

import anthropic

client = anthropic.Anthropic(
    base_url=os.environ.get("TIDEGATE_URL", "http://127.0.0.1:4600"),
    api_key=os.environ.get("TIDEGATE_KEY", "none"),
)

question = " ".join(sys.argv[1:]) or "Why is the sea salty?"
with client.messages.stream(
    model=os.environ.get("TIDEGATE_MODEL", "claude-haiku-5-5"),
    max_tokens=500,
    messages=[{"role": "user", "content": question}],
    # An answer that breaks off upstream is taken up again where it stopped.
    extra_headers={"tidegate-recover": "continue"},
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
    answer = stream.get_final_message()
print(f"\n[{answer.stop_reason}, {answer.usage.output_tokens} tokens]")
