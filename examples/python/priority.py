"""Who goes first, and until when: background work beside a person who waits.

    pip install anthropic
    python priority.py [DEADLINE_MS]

`tidegate-priority` says who is served first when quota is short; `tidegate-deadline-ms` when an
answer is no longer wanted. TIDEGATE_URL is where Tidegate listens; TIDEGATE_KEY is a client key, if
it asks for one.
"""

import asyncio
import os
import sys
import time

import anthropic

DEADLINE_MS = int(sys.argv[1]) if len(sys.argv) > 1 else 30_000

client = anthropic.AsyncAnthropic(
    base_url=os.environ.get("TIDEGATE_URL", "http://127.0.0.1:4600"),
    api_key=os.environ.get("TIDEGATE_KEY", "none"),
    # Tidegate repeats what can be repeated; an SDK's own retry would begin the deadline anew.
    max_retries=0,
)


async def ask(question, priority, deadline_ms):
    began = time.monotonic()
    try:
        answer = await client.messages.create(
            model=os.environ.get("TIDEGATE_MODEL", "claude-haiku-5-5"),
            max_tokens=200,
            messages=[{"role": "user", "content": question}],
            extra_headers={"tidegate-priority": priority, "tidegate-deadline-ms": str(deadline_ms)},
        )
        outcome = f"{answer.usage.output_tokens} tokens"
    except anthropic.APIStatusError as error:
        # The machine code says why; docs/errors.md has each.
        outcome = f"{error.status_code} {error.body['error']['details']['error_code']}"
    print(f"{priority:<11} {outcome} after {time.monotonic() - began:.1f} s")


async def main():
    reports = [ask(f"Summarise report {n}.", "background", 10 * 60_000) for n in range(5)]
    await asyncio.gather(*reports, ask("What is a tide?", "interactive", DEADLINE_MS))


asyncio.run(main())
