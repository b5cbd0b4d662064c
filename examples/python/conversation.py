"""A conversation that Tidegate keeps: each request carries only what is new.

    pip install anthropic
    python conversation.py [ID]

Needs a Tidegate that keeps conversations (`serve --simulate` does). TIDEGATE_URL is where Tidegate
listens; TIDEGATE_KEY is a client key, if it asks for one.
"""

import os
import sys
import uuid

import anthropic

client = anthropic.Anthropic(
    base_url=os.environ.get("TIDEGATE_URL", "http://127.0.0.1:4600"),
    api_key=os.environ.get("TIDEGATE_KEY", "none"),
)
conversation = sys.argv[1] if len(sys.argv) > 1 else f"example-{uuid.uuid4()}"

for question in ("My order is 7741.", "Where is it?"):
    answer = client.messages.create(
        model=os.environ.get("TIDEGATE_MODEL", "claude-haiku-5-5"),
        max_tokens=300,
        messages=[{"role": "user", "content": question}],
        # An SDK that repeats a request gets the turn that is there, and never makes a second one.
        extra_headers={"tidegate-conversation": conversation},
    )
    text = "".join(block.text for block in answer.content if block.type == "text")
    print(f"> {question}\n{text}\n")

turns = client.get(f"/v1/conversations/{conversation}/turns", cast_to=object)
print(f"[{conversation} has {len(turns['data'])} turns]")
