// A stream that survives its connection: cut in the middle, read on from the last event.
//
//     node resume.ts     (Node 23.6 or newer; before, `npx tsx resume.ts`)
//
// With `tidegate-resume` every event has an `id:`, a cursor. Whoever has the stream's id and the last
// cursor gets the rest, on any connection. Needs no package. TIDEGATE_URL is where Tidegate listens;
// TIDEGATE_KEY is a client key, if it asks for one.

const url = process.env.TIDEGATE_URL ?? "http://127.0.0.1:4600";
const headers = {
  "content-type": "application/json",
  "anthropic-version": "2023-06-01",
  "x-api-key": process.env.TIDEGATE_KEY ?? "none",
};

/** Each event with its cursor; pings have none. */
const events = async function* (answer = new Response()) {
  if (!answer.ok || !answer.body) throw new Error(await answer.text());
  let text = "";
  for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
    const whole = (text + piece).split("\n\n");
    text = whole.pop() ?? "";
    for (const block of whole) {
      const lines = block.split("\n").map((line) => [line.split(": ", 1)[0], line.slice(line.indexOf(": ") + 2)]);
      const { id, data } = Object.fromEntries(lines);
      if (data) yield { cursor: id, event: JSON.parse(data) };
    }
  }
};

const show = (event = { type: "", delta: { text: "" } }) => {
  if (event.type === "content_block_delta") process.stdout.write(event.delta.text ?? "");
};

const body = JSON.stringify({
  model: process.env.TIDEGATE_MODEL ?? "claude-haiku-5-5",
  max_tokens: 500,
  stream: true,
  messages: [{ role: "user", content: "Tell me about the tide." }],
});
const answer = await fetch(`${url}/v1/messages`, {
  method: "POST",
  headers: { ...headers, "tidegate-resume": "memory" },
  body,
});
const stream = answer.headers.get("tidegate-stream");
let last = "";
let seen = 0;
for await (const { cursor, event } of events(answer)) {
  show(event);
  last = cursor ?? last;
  seen += 1;
  if (seen > 5) break; // as if the connection had been lost here
}

console.log("\n-- cut, and back again --");
for await (const { event } of events(await fetch(`${url}/v1/streams/${stream}?after=${last}`, { headers }))) {
  show(event);
  if (event.type === "error") throw new Error(event.error.message);
}
console.log("\n[whole]");
