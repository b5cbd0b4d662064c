// A conversation that Tidegate keeps: each request carries only what is new.
//
//     npm install @anthropic-ai/sdk
//     node conversation.ts [ID]     (Node 23.6 or newer; before, `npx tsx conversation.ts`)
//
// Needs a Tidegate that keeps conversations (`serve --simulate` does). TIDEGATE_URL is where Tidegate
// listens; TIDEGATE_KEY is a client key, if it asks for one.

import { randomUUID } from "node:crypto";
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({
  baseURL: process.env.TIDEGATE_URL ?? "http://127.0.0.1:4600",
  apiKey: process.env.TIDEGATE_KEY ?? "none",
});
const conversation = process.argv[2] ?? `example-${randomUUID()}`;

for (const question of ["My order is 7741.", "Where is it?"]) {
  const answer = await client.messages.create(
    {
      model: process.env.TIDEGATE_MODEL ?? "claude-haiku-5-5",
      max_tokens: 300,
      messages: [{ role: "user", content: question }],
    },
    // An SDK that repeats a request gets the turn that is there, and never makes a second one.
    { headers: { "tidegate-conversation": conversation } },
  );
  const text = answer.content.map((block) => (block.type === "text" ? block.text : "")).join("");
  console.log(`> ${question}\n${text}\n`);
}

const turns = JSON.parse(JSON.stringify(await client.get(`/v1/conversations/${conversation}/turns`)));
console.log(`[${conversation} has ${turns.data.length} turns]`);
