// The Vercel AI SDK with its Anthropic provider: the same answers, tool calls and errors, whoever
// stands between.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { createAnthropic } from "@ai-sdk/anthropic";
import { APICallError, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { baseURL, deadlineMs, simulate, textOf, throughGateway, truth, upstreamAtRest } from "./scripted.mjs";

// Tells of itself on standard error otherwise.
globalThis.AI_SDK_LOG_WARNINGS = false;

const claude = (name = "claude-haiku-4-5") =>
  createAnthropic({ baseURL: `${baseURL}/v1`, apiKey: process.env.TIDEGATE_API_KEY ?? "sk-ant-client-1" })(name);
const ask = (items, options = {}, more = {}) => ({
  model: claude(),
  maxOutputTokens: 1024,
  maxRetries: 0,
  prompt: "Tell me about the tide.",
  headers: simulate(items, options).headers,
  ...more,
});
// Through the gateway a failing upstream is retried until the deadline.
const failing = (fault) => ({ fault, ...(throughGateway ? { deadlineMs } : {}) });

afterEach(() => upstreamAtRest());

test("a stream is the answer in pieces", async () => {
  const stream = streamText(ask({ output_tokens: 120, seed: 5 }));
  const pieces = [];
  for await (const piece of stream.textStream) pieces.push(piece);
  const [{ content }] = await truth("/requests?limit=1");
  assert.ok(pieces.length > 5);
  assert.equal(pieces.join(""), textOf({ content }), "what was produced");
  assert.equal(await stream.finishReason, "stop");
  assert.equal((await stream.usage).outputTokens, 120);
});

test("a tool is called, and its result answered", async () => {
  const asked = [];
  const tide_at = tool({
    description: "Height of the tide at a place.",
    inputSchema: jsonSchema({ type: "object", properties: { place: { type: "string" } }, required: ["place"] }),
    execute: async ({ place }) => {
      asked.push(place);
      return "2.4 m";
    },
  });
  // The first step is told to call; without a script for it the second one answers.
  const prepareStep = ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? { type: "tool", toolName: "tide_at" } : "none" });
  const more = { tools: { tide_at }, stopWhen: stepCountIs(3), prepareStep, prompt: "How high is the tide at Brest?" };
  const stream = streamText(ask({}, {}, more));
  let text = "";
  for await (const piece of stream.textStream) text += piece;
  assert.equal(asked.length, 1);
  assert.equal(typeof asked[0], "string");
  assert.ok(text.length > 0);
  assert.equal((await stream.steps).length, 2);
});

test("an overload is an error that may be tried again", async () => {
  await assert.rejects(generateText(ask({}, failing("status:529"))), (error) => {
    assert.ok(APICallError.isInstance(error), String(error));
    assert.ok((throughGateway ? [529, 504] : [529]).includes(error.statusCode), String(error.statusCode));
    assert.equal(error.isRetryable, true);
    return true;
  });
});

test("a wrong request is not tried again", async () => {
  const wrong = { maxOutputTokens: 10_000_000, model: claude("claude-unheard-of") };
  await assert.rejects(generateText(ask({}, {}, wrong)), (error) => {
    assert.ok(APICallError.isInstance(error), String(error));
    assert.equal(error.isRetryable, false);
    assert.ok([400, 404].includes(error.statusCode), String(error.statusCode));
    assert.ok(["invalid_request_error", "not_found_error"].includes(error.data.error.type));
    return true;
  });
});

test("a stream that breaks off is an error and no short answer", async () => {
  const errors = [];
  const more = { onError: ({ error }) => errors.push(error) };
  const stream = streamText(ask({ output_tokens: 200 }, failing("error-at:event-9"), more));
  const kinds = [];
  for await (const part of stream.fullStream) kinds.push(part.type);
  assert.ok(kinds.includes("text-delta") && kinds.includes("error"), kinds.join(" "));
  assert.equal(errors.length, 1);
  assert.match(JSON.stringify(errors[0]) + String(errors[0]), /overloaded_error|api_error/i);
});

test("a long stream comes whole", async () => {
  const text = "Ebb and flood, 潮の満ち引き 🌊. ".repeat(1_500);
  const asked = ask({ event_ms: 1 }, {}, { model: claude("echo"), prompt: text, maxOutputTokens: 60_000 });
  const pieces = [];
  for await (const piece of streamText(asked).textStream) pieces.push(piece);
  assert.equal(pieces.join(""), text);
  assert.ok(pieces.length > 1_000);
});
