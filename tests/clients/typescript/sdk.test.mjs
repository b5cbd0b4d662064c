// The TypeScript SDK against a Claude API that is Tidegate's simulator, straight or through the gateway.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import {
  ask, baseURL, client, deadlineMs, gist, model, simulate, textOf, throughGateway, upstreamAtRest, upstreamStopped,
} from "./scripted.mjs";

const tool = {
  name: "tide_at",
  description: "Height of the tide at a place.",
  input_schema: { type: "object", properties: { place: { type: "string" } }, required: ["place"] },
};

// Would take minutes if nobody stopped it.
const long = () => simulate({ output_tokens: 20_000, event_ms: 50 });

afterEach(() => upstreamAtRest());

test("an answer has content, usage and a request id", async () => {
  const message = await client.messages.create(ask(), simulate({ output_tokens: 40 }));
  assert.equal(message.type, "message");
  assert.equal(message.stop_reason, "end_turn");
  assert.ok(textOf(message).length > 0);
  assert.ok(message.usage.input_tokens > 0 && message.usage.output_tokens > 0);
  assert.match(message._request_id, /^req_/);
});

test("the stream helper accumulates what the JSON answer is", async () => {
  const options = () => simulate({ output_tokens: 120, seed: 5 });
  let text = "";
  const stream = client.messages.stream(ask(), options()).on("text", (piece) => (text += piece));
  const final = await stream.finalMessage();
  assert.equal(text, textOf(final));
  const whole = await client.messages.create(ask(), options());
  assert.deepEqual(gist(final), gist(whole));
});

test("events come in their order", async () => {
  const kinds = [];
  for await (const event of await client.messages.create(ask("x", { stream: true }), simulate())) {
    if (event.type !== "ping") kinds.push(event.type);
  }
  assert.deepEqual(kinds.slice(0, 2), ["message_start", "content_block_start"]);
  assert.ok(kinds.slice(2, -3).every((kind) => kind === "content_block_delta"));
  assert.deepEqual(kinds.slice(-3), ["content_block_stop", "message_delta", "message_stop"]);
});

test("text arrives byte for byte", async () => {
  const text = 'Ebb and flood — 潮の満ち引き 🌊 "quoted" \\ \n'.repeat(40);
  const stream = client.messages.stream(ask(text, { model: "echo", max_tokens: 20_000 }), simulate());
  assert.equal(textOf(await stream.finalMessage()), text);
});

test("thinking has its signature", async () => {
  const asked = ask("x", { max_tokens: 4_000, thinking: { type: "enabled", budget_tokens: 2_000 } });
  const final = await client.messages.stream(asked, simulate({ thinking_tokens: 60 })).finalMessage();
  assert.deepEqual(final.content.map((block) => block.type), ["thinking", "text"]);
  assert.ok(final.content[0].thinking && final.content[0].signature);
});

for (const streamed of [false, true]) {
  test(`the tool loop ends in an answer, ${streamed ? "streamed" : "whole"}`, async () => {
    const one = (asked, options) =>
      streamed ? client.messages.stream(asked, options).finalMessage() : client.messages.create(asked, options);
    const messages = [{ role: "user", content: "How high is the tide at Brest?" }];
    let message = await one(ask("", { messages, tools: [tool] }), simulate({ tool: tool.name }));
    assert.equal(message.stop_reason, "tool_use");
    const call = message.content.find((block) => block.type === "tool_use");
    assert.equal(call.name, tool.name);
    assert.equal(typeof call.input.place, "string");
    for (let round = 0; round < 4 && message.stop_reason === "tool_use"; round += 1) {
      const calls = message.content.filter((block) => block.type === "tool_use");
      const results = calls.map(({ id }) => ({ type: "tool_result", tool_use_id: id, content: "2.4 m" }));
      messages.push({ role: "assistant", content: message.content }, { role: "user", content: results });
      message = await one(ask("", { messages, tools: [tool] }), simulate());
    }
    assert.equal(message.stop_reason, "end_turn");
  });
}

test("a long answer in one piece is whole", async () => {
  const options = simulate({ output_tokens: 8_000, first_ms: 500, event_ms: 1 }, { timeout: 120_000 });
  const message = await client.messages.create(ask("x", { max_tokens: 60_000 }), options);
  assert.equal(message.stop_reason, "end_turn");
  assert.ok(message.usage.output_tokens >= 7_000);
});

test("tokens are counted", async () => {
  const { input_tokens } = await client.messages.countTokens({ model, messages: ask().messages });
  assert.ok(input_tokens > 0);
});

test("models are listed and retrieved", async () => {
  const ids = [];
  for await (const each of client.models.list({ limit: 3 })) ids.push(each.id);
  assert.ok(ids.length > 3 && new Set(ids).size === ids.length);
  assert.equal((await client.models.retrieve(ids[0])).id, ids[0]);
  await assert.rejects(client.models.retrieve("claude-of-another-world"), Anthropic.NotFoundError);
});

test("betas nobody knows are no obstacle", async () => {
  const options = simulate();
  options.headers["anthropic-beta"] = "made-up-2031-01-01";
  assert.equal((await client.messages.create(ask(), options)).stop_reason, "end_turn");
  const beta = await client.beta.messages.create({ ...ask(), betas: ["context-management-2025-06-27"] }, simulate());
  assert.equal(beta.stop_reason, "end_turn");
});

test("the root answers HEAD", async () => {
  assert.equal((await fetch(baseURL, { method: "HEAD" })).status, 200);
});

test("a body the API would refuse is a 400 that says why", async () => {
  const asked = ask("", { messages: [{ role: "assistant", content: "hello" }] });
  await assert.rejects(client.messages.create(asked, simulate()), (error) => {
    assert.ok(error instanceof Anthropic.BadRequestError);
    assert.equal(error.error.error.type, "invalid_request_error");
    assert.match(error.message, /first message/);
    assert.match(error.requestID, /^req_/);
    return true;
  });
});

test("a model that is not there is a 404", async () => {
  const asked = ask("x", { model: "claude-of-another-world" });
  await assert.rejects(client.messages.create(asked, simulate()), Anthropic.NotFoundError);
});

test("a wrong key is an authentication error", async () => {
  const stranger = client.withOptions({ apiKey: "tg_of-nobody" });
  await assert.rejects(stranger.messages.create(ask(), simulate()), Anthropic.AuthenticationError);
});

test("overload is an overloaded error", async () => {
  const options = simulate({}, { fault: "status:529", deadlineMs });
  await assert.rejects(client.messages.create(ask(), options), (error) => {
    assert.ok(error instanceof Anthropic.InternalServerError);
    assert.equal(error.status, 529);
    assert.equal(error.error.error.type, "overloaded_error");
    return true;
  });
});

test("too many requests is a refusal with its retry-after", async () => {
  const options = simulate({}, { fault: "status:429:7", deadlineMs });
  // A model of its own: the gateway holds back a whole class of models after a 429.
  await assert.rejects(client.messages.create(ask("x", { model: "claude-opus-5" }), options), (error) => {
    // The upstream's quota is no fault of this client: through the gateway it is an overload.
    assert.equal(error.status, throughGateway ? 529 : 429);
    assert.ok(Number(error.headers.get("retry-after")) > 0);
    return true;
  });
});

test("an error within a stream raises", async () => {
  const seen = [];
  const read = async () => {
    const options = simulate({ output_tokens: 120 }, { fault: "error-at:event-6" });
    for await (const event of await client.messages.create(ask("x", { stream: true }), options)) seen.push(event.type);
  };
  await assert.rejects(read, (error) => {
    assert.ok(error instanceof Anthropic.APIError);
    assert.equal(error.error.error.type, "overloaded_error");
    return true;
  });
  assert.equal(seen[0], "message_start");
});

test("an answer that ends too early is an error through the gateway", async () => {
  const options = simulate({ output_tokens: 120 }, { fault: "end-at:event-6" });
  const read = client.messages.stream(ask(), options).finalMessage();
  if (throughGateway) {
    await assert.rejects(read, (error) => {
      assert.ok(error instanceof Anthropic.APIError);
      assert.ok(["api_error", "overloaded_error"].includes(error.error?.error?.type), String(error));
      return true;
    });
  } else {
    await assert.rejects(read, Anthropic.AnthropicError);
  }
});

test("a connection cut within a stream raises", async () => {
  const options = simulate({ output_tokens: 120 }, { fault: "reset-at:event-6" });
  await assert.rejects(client.messages.stream(ask(), options).finalMessage(), Anthropic.AnthropicError);
});

test("aborting a stream stops the upstream", async () => {
  const stream = await client.messages.create(ask("x", { stream: true, max_tokens: 60_000 }), long());
  let events = 0;
  for await (const _ of stream) {
    events += 1;
    if (events === 5) break;
  }
  await upstreamStopped();
});

test("aborting the helper stops the upstream", async () => {
  const stream = client.messages.stream(ask("x", { max_tokens: 60_000 }), long());
  stream.on("text", async () => stream.abort());
  await assert.rejects(stream.finalMessage(), Anthropic.APIUserAbortError);
  await upstreamStopped();
});

test("the timeout of a whole answer stops the upstream", async () => {
  const options = { ...long(), timeout: 500 };
  await assert.rejects(client.messages.create(ask("x", { max_tokens: 60_000 }), options), (error) => {
    // The SDK tells its timeout in a header, so the gateway may be first to say that it is over.
    assert.ok(error instanceof Anthropic.APIConnectionTimeoutError || (throughGateway && error.status === 504));
    return true;
  });
  await upstreamStopped();
});

test("fifty streams at once do not mix", async () => {
  const one = async (n) => {
    const text = `stream ${n}: ` + `<${n}>`.repeat(100);
    const stream = client.messages.stream(ask(text, { model: "echo", max_tokens: 8_000 }), simulate({ event_ms: 5 }));
    assert.equal(textOf(await stream.finalMessage()), text);
  };
  await Promise.all(Array.from({ length: 50 }, (_, n) => one(n)));
});
