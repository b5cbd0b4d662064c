"""How a test scripts the answer it gets: the simulator's `simulate:` header, and who sends it.

`cargo xtask test` runs this suite against a fresh server each time and tells it where: straight at
the simulator, or through the gateway. A test that must see something else through the gateway says
so with `THROUGH_GATEWAY`.
"""

import os

import anthropic

BASE_URL = os.environ["TIDEGATE_BASE_URL"]
API_KEY = os.environ.get("TIDEGATE_API_KEY", "sk-ant-client-1")
THROUGH_GATEWAY = os.environ.get("TIDEGATE_THROUGH", "simulator") == "gateway"
MAJOR = int(anthropic.__version__.split(".")[0])

# A model that thinks only when asked, and one that repeats the last user text.
MODEL = "claude-haiku-4-5"
ECHO = "echo"

# Through the gateway a failing upstream is retried; no test waits longer than this for the end of it.
DEADLINE_MS = 3_000


def simulate(*faults, deadline_ms=None, **items):
    """Headers for one request: no waiting unless asked for, no fault unless named."""
    pace = {"head_ms": 0, "first_ms": 0, "event_ms": 0, **items}
    words = [f"{key}={value}" for key, value in pace.items()]
    words += [f"fault={fault}" for fault in faults or ("none",)]
    headers = {"simulate": ", ".join(words)}
    if deadline_ms is not None:
        headers["tidegate-deadline-ms"] = str(deadline_ms)
    return headers


def ask(text="Tell me about the tide.", **more):
    """The arguments of a plain request."""
    return {"model": MODEL, "max_tokens": 1024, "messages": [{"role": "user", "content": text}], **more}


def text_of(message):
    """All text of an answer."""
    return "".join(block.text for block in message.content if block.type == "text")


def gist(message):
    """What must be equal however an answer travelled: everything but the ids."""
    content = [block.model_dump(exclude_none=True, exclude={"id", "parsed_output"}) for block in message.content]
    usage = (message.usage.input_tokens, message.usage.output_tokens)
    return message.model, message.role, content, message.stop_reason, message.stop_sequence, usage
