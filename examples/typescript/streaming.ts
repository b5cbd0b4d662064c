// A streamed answer with the official SDK: only the base URL is Tidegate's.
//
//     npm install @anthropic-ai/sdk
//     node streaming.ts "Why is the sea salty?"     (Node 23.6 or newer; before, `npx tsx streaming.ts`)
//
// TIDEGATE_URL is where Tidegate listens; TIDEGATE_KEY is a client key, if it asks for one.

import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({
  baseURL: process.env.TIDEGATE_URL ?? "http://127.0.0.1:4600",
  apiKey: process.env.TIDEGATE_KEY ?? "none",
});

const stream = client.messages.stream(
  {
    model: process.env.TIDEGATE_MODEL ?? "claude-haiku-5-5",
    max_tokens: 500,
    messages: [{ role: "user", content: process.argv.slice(2).join(" ") || "Why is the sea salty?" }],
  },
  // An answer that breaks off upstream is taken up again where it stopped.
  { headers: { "tidegate-recover": "continue" } },
);
stream.on("text", (text) => process.stdout.write(text));
const answer = await stream.finalMessage();
console.log(`\n[${answer.stop_reason}, ${answer.usage.output_tokens} tokens]`);
