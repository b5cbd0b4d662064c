// How a test scripts the answer it gets (the simulator's `simulate:` header), who sends it, and what
// the simulator says really happened. The addresses come from `cargo xtask test`.

import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";
import Anthropic from "@anthropic-ai/sdk";

export const baseURL = process.env.TIDEGATE_BASE_URL;
export const throughGateway = process.env.TIDEGATE_THROUGH === "gateway";
export const model = "claude-haiku-4-5";
// Through the gateway a failing upstream is retried; no test waits longer than this for the end of it.
export const deadlineMs = 3_000;

/** An SDK that does not retry, so that a test sees each refusal. */
export const client = new Anthropic({
  baseURL,
  apiKey: process.env.TIDEGATE_API_KEY ?? "sk-ant-client-1",
  maxRetries: 0,
  timeout: 30_000,
});

/** Options of one request: no waiting unless asked for, no fault unless named. */
export function simulate(items = {}, { fault = "none", deadlineMs, ...options } = {}) {
  const pace = { head_ms: 0, first_ms: 0, event_ms: 0, ...items, fault };
  const headers = { simulate: Object.entries(pace).map(([key, value]) => `${key}=${value}`).join(", ") };
  if (deadlineMs !== undefined) headers["tidegate-deadline-ms"] = String(deadlineMs);
  return { headers, ...options };
}

export function ask(text = "Tell me about the tide.", more = {}) {
  return { model, max_tokens: 1024, messages: [{ role: "user", content: text }], ...more };
}

export function textOf(message) {
  return message.content.map((block) => (block.type === "text" ? block.text : "")).join("");
}

/** What must be equal however an answer travelled: everything but the ids, and what is null. */
export function gist({ model, role, content, stop_reason, stop_sequence, usage }) {
  const bare = (block) =>
    Object.fromEntries(Object.entries(block).filter(([key, value]) => key !== "id" && value !== null && value !== undefined));
  const { input_tokens, output_tokens } = usage;
  return { model, role, content: content.map(bare), stop_reason, stop_sequence, input_tokens, output_tokens };
}

/** What the simulator says really happened. */
export async function truth(path = "") {
  return (await fetch(`${process.env.TIDEGATE_TRUTH_URL}/truth${path}`)).json();
}

/** Waits until the upstream is at rest; it must be within the time. */
export async function upstreamAtRest(withinMs = 1_000) {
  const until = performance.now() + withinMs;
  for (;;) {
    const { open } = await truth();
    if (open === 0) return;
    assert.ok(performance.now() < until, `${open} requests are open upstream after ${withinMs} ms`);
    await pause(20);
  }
}

/** The simulator saw its client leave, and stopped working for it at once. */
export async function upstreamStopped() {
  await upstreamAtRest();
  const [request] = await truth("/requests?limit=1");
  assert.notEqual(request.left_ms, null, "the simulator played the answer to its end");
  assert.ok(request.closing_us < 100_000 && request.produced_tokens < 2_000);
}
