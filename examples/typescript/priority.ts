// Who goes first, and until when: background work beside a person who waits.
//
//     npm install @anthropic-ai/sdk
//     node priority.ts [DEADLINE_MS]     (Node 23.6 or newer; before, `npx tsx priority.ts`)
//
// `tidegate-priority` says who is served first when quota is short; `tidegate-deadline-ms` when an
// answer is no longer wanted. TIDEGATE_URL is where Tidegate listens; TIDEGATE_KEY is a client key,
// if it asks for one.

import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({
  baseURL: process.env.TIDEGATE_URL ?? "http://127.0.0.1:4600",
  apiKey: process.env.TIDEGATE_KEY ?? "none",
  // Tidegate repeats what can be repeated; an SDK's own retry would begin the deadline anew.
  maxRetries: 0,
});

const ask = async (question = "", priority = "normal", deadlineMs = 30_000) => {
  const began = performance.now();
  let outcome = "";
  try {
    const answer = await client.messages.create(
      {
        model: process.env.TIDEGATE_MODEL ?? "claude-haiku-5-5",
        max_tokens: 200,
        messages: [{ role: "user", content: question }],
      },
      { headers: { "tidegate-priority": priority, "tidegate-deadline-ms": String(deadlineMs) } },
    );
    outcome = `${answer.usage.output_tokens} tokens`;
  } catch (error) {
    if (!(error instanceof Anthropic.APIError) || error.status === undefined) throw error;
    // The machine code says why; docs/errors.md has each.
    const told = JSON.parse(JSON.stringify(error.error));
    outcome = `${error.status} ${told.error.details.error_code}`;
  }
  console.log(`${priority.padEnd(11)} ${outcome} after ${((performance.now() - began) / 1000).toFixed(1)} s`);
};

const reports = [1, 2, 3, 4, 5].map((n) => ask(`Summarise report ${n}.`, "background", 10 * 60_000));
await Promise.all([...reports, ask("What is a tide?", "interactive", Number(process.argv[2] ?? 30_000))]);
