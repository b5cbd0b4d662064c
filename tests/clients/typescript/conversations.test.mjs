// Conversations that the gateway keeps, by the TypeScript SDK: a header and what is new, and a retry
// is never a second turn.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { afterEach, test as always } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import Anthropic from "@anthropic-ai/sdk";
import { lossy } from "./lossy.mjs";
import { ask, client, simulate, textOf, throughGateway, truth, upstreamAtRest } from "./scripted.mjs";

const tool = {
  name: "tide_at",
  description: "Height of the tide at a place.",
  input_schema: { type: "object", properties: { place: { type: "string" } }, required: ["place"] },
};

// The API itself keeps no conversations.
const test = throughGateway ? always : (name) => always(name, { skip: "through the gateway only" }, () => {});

function bothWays(name, body) {
  for (const streamed of [false, true]) {
    test(`${name}, ${streamed ? "streamed" : "whole"}`, () => body({ name: `node-${randomUUID()}`, streamed }));
  }
}

/** A turn: the message, and a look at the headers it came with. */
async function say(sdk, { name, streamed = false }, asked, { lines = {}, scripted = {} } = {}) {
  const options = simulate(scripted);
  Object.assign(options.headers, { "tidegate-conversation": name }, lines);
  if (!streamed) {
    const { data, response } = await sdk.messages.create(asked, options).withResponse();
    return { message: data, header: (name) => response.headers.get(name) };
  }
  const { data, response } = await sdk.messages.stream(asked, options).withResponse();
  return { message: await data.finalMessage(), header: (name) => response.headers.get(name) };
}

/** What a door of the conversation says, by the SDK's own way to paths it does not know. */
const door = (name, rest = "") => client.get(`/v1/conversations/${name}${rest}`);
const turns = async (name) => (await door(name, "/turns?limit=1000")).data;
const echo = (text) => ask(text, { model: "echo" });
const codeOf = (error) => error.error.error.details.error_code;
const inputOf = ({ usage }) =>
  usage.input_tokens + (usage.cache_creation_input_tokens ?? 0) + (usage.cache_read_input_tokens ?? 0);

afterEach(() => upstreamAtRest());

bothWays("only what is new is sent and the model gets all of it", async (where) => {
  const inputs = [];
  for (const [n, text] of ["My order is 7741. ".repeat(50), "Where is it?", "And when?"].entries()) {
    const { message, header } = await say(client, where, echo(text));
    assert.equal(header("tidegate-conversation"), where.name);
    assert.equal(header("tidegate-turn"), String(n + 1));
    assert.equal(header("tidegate-replayed"), null);
    assert.equal(textOf(message), text);
    inputs.push(inputOf(message));
  }
  assert.ok(inputs[2] > inputs[1] && inputs[1] > 1.5 * inputs[0], String(inputs));
  const stored = await turns(where.name);
  assert.deepEqual(stored.map((turn) => [turn.number, turn.status, turn.messages.length]), [
    [1, "complete", 1], [2, "complete", 1], [3, "complete", 1],
  ]);
});

bothWays("the whole history may be sent each time", async (where) => {
  const messages = [];
  for (let number = 1; number <= 4; number += 1) {
    messages.push({ role: "user", content: `Question ${number}?` });
    const { message, header } = await say(client, where, ask("", { messages: [...messages], model: "echo" }));
    assert.equal(header("tidegate-turn"), String(number));
    messages.push({ role: "assistant", content: message.content });
  }
  const stored = await turns(where.name);
  assert.deepEqual(stored.map((turn) => turn.messages), [0, 2, 4, 6].map((n) => [messages[n]]));
});

bothWays("a retry of the SDK gets the turn that is there", async (where) => {
  const { url, passed, close } = await lossy(1);
  try {
    const before = (await truth()).requests;
    const retrying = client.withOptions({ baseURL: url, maxRetries: 2 });
    const { message, header } = await say(retrying, where, ask(), { scripted: { output_tokens: 60 } });
    assert.deepEqual(passed, [["0", 200, true], ["1", 200, false]]);
    assert.equal((await truth()).requests, before + 1, "a model was asked twice");
    assert.deepEqual([header("tidegate-turn"), header("tidegate-replayed")], ["1", "true"]);
    const stored = await turns(where.name);
    assert.equal(stored.length, 1);
    assert.ok(textOf(message).length > 0);
    assert.equal(textOf(message), stored[0].answer.content[0].text);
    assert.equal(message.usage.output_tokens, stored[0].usage.output_tokens);
  } finally {
    await close();
  }
});

bothWays("a turn out of order is a conflict that the SDK does not retry", async (where) => {
  const { url, passed, close } = await lossy(0);
  try {
    const retrying = client.withOptions({ baseURL: url, maxRetries: 2 });
    await say(retrying, where, echo("One."), { lines: { "tidegate-turn": "1" } });
    await assert.rejects(say(retrying, where, echo("Two."), { lines: { "tidegate-turn": "1" } }), (error) => {
      assert.ok(error instanceof Anthropic.ConflictError, String(error));
      assert.equal(codeOf(error), "turn_conflict");
      return true;
    });
    assert.deepEqual(passed, [["0", 200, false], ["0", 409, false]]);
    const { header } = await say(retrying, where, echo("Two."), { lines: { "tidegate-turn": "2" } });
    assert.equal(header("tidegate-turn"), "2");
  } finally {
    await close();
  }
});

test("saying the same twice is two turns", async () => {
  const where = { name: `node-${randomUUID()}` };
  for (const number of ["1", "2"]) assert.equal((await say(client, where, echo("Yes."))).header("tidegate-turn"), number);
});

test("another history is a conflict that says where", async () => {
  const where = { name: `node-${randomUUID()}` };
  const { message } = await say(client, where, echo("One?"));
  const messages = [
    { role: "user", content: "Two?" }, { role: "assistant", content: message.content }, { role: "user", content: "Three?" },
  ];
  await assert.rejects(say(client, where, ask("", { messages })), (error) => {
    assert.ok(error instanceof Anthropic.ConflictError, String(error));
    assert.equal(codeOf(error), "conversation_diverged");
    return true;
  });
});

bothWays("a tool is called in one turn and answered in the next", async (where) => {
  let { message } = await say(client, where, ask("How high is the tide at Brest?", { tools: [tool] }), {
    scripted: { tool: tool.name },
  });
  assert.equal(message.stop_reason, "tool_use");
  await assert.rejects(say(client, where, ask("Never mind.", { tools: [tool] })), Anthropic.BadRequestError);
  for (let round = 0; round < 4 && message.stop_reason === "tool_use"; round += 1) {
    const calls = message.content.filter((block) => block.type === "tool_use");
    const results = calls.map(({ id }) => ({ type: "tool_result", tool_use_id: id, content: "2.4 m" }));
    ({ message } = await say(client, where, ask("", { messages: [{ role: "user", content: results }], tools: [tool] })));
  }
  assert.equal(message.stop_reason, "end_turn");
  assert.equal(textOf((await say(client, where, ask("Thanks.", { model: "echo", tools: [tool] }))).message), "Thanks.");
});

test("whoever leaves finds the turn interrupted and goes on", async () => {
  const name = `node-${randomUUID()}`;
  const options = simulate({ output_tokens: 20_000, event_ms: 20 });
  options.headers["tidegate-conversation"] = name;
  const stream = client.messages.stream(ask("x", { max_tokens: 60_000 }), options);
  let words = "";
  stream.on("text", (piece) => {
    words += piece;
    if (words.length > 50) stream.abort();
  });
  await assert.rejects(stream.finalMessage(), Anthropic.APIUserAbortError);
  let stored = [];
  for (let n = 0; n < 250 && stored.length === 0; n += 1) {
    stored = await turns(name).catch(() => []);
    await pause(20);
  }
  assert.deepEqual(stored.map((turn) => turn.status), ["interrupted"]);
  assert.ok(stored[0].answer.content[0].text.startsWith(words.slice(0, 50)));
  assert.equal((await say(client, { name }, echo("Go on."))).header("tidegate-turn"), "2");
});

test("the doors are reached by the SDK's own methods", async () => {
  const name = `node-${randomUUID()}`;
  await assert.rejects(door(name), (error) => {
    assert.ok(error instanceof Anthropic.NotFoundError);
    assert.equal(codeOf(error), "conversation_not_found");
    return true;
  });
  const seed = [{ role: "user", content: "Seed." }, { role: "assistant", content: "Sown." }];
  const turn = await client.post(`/v1/conversations/${name}/turns`, { body: { messages: seed } });
  assert.deepEqual([turn.type, turn.number, turn.status], ["turn", 1, "appended"]);
  assert.equal((await say(client, { name }, echo("Grown?"))).header("tidegate-turn"), "2");

  assert.equal((await door(name)).turns, 2);
  assert.deepEqual((await client.get("/v1/conversations?limit=1")).data.map(({ id }) => id), [name]);
  const window = await door(name, "/window?model=claude-sonnet-5-5&max_tokens=1000");
  assert.ok(window.tokens > 0 && window.tokens < window.budget.room && window.messages === undefined);

  const fork = await client.post(`/v1/conversations/${name}/fork`, { body: { id: `${name}-b`, turn: 1 } });
  assert.deepEqual([fork.turns, fork.forked_from], [1, { id: name, turn: 1 }]);
  const gone = await client.delete(`/v1/conversations/${name}`);
  assert.deepEqual([gone.type, gone.turns], ["conversation_deleted", 2]);
  await assert.rejects(door(name), Anthropic.NotFoundError);
  assert.equal((await door(`${name}-b`)).turns, 1);
});
