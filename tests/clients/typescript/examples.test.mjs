// The programs of `examples/typescript` do what they say, against a running gateway. They are written
// in what TypeScript and JavaScript share, so they run without a compiler.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { baseURL, throughGateway } from "./scripted.mjs";

const skip = throughGateway ? false : "they talk to a gateway";

/** What an example prints; it is read from standard input, so that it finds the packages of this folder. */
async function run(name, ...words) {
  const program = await readFile(new URL(`../../../examples/typescript/${name}`, import.meta.url));
  const env = { ...process.env, TIDEGATE_URL: baseURL, TIDEGATE_KEY: process.env.TIDEGATE_API_KEY };
  const child = spawn(process.execPath, ["--input-type=module", "-", ...words], { env, timeout: 60_000 });
  let [said, failed] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (piece) => (said += piece));
  child.stderr.setEncoding("utf8").on("data", (piece) => (failed += piece));
  child.stdin.end(program);
  const [code] = await once(child, "close");
  assert.equal(code, 0, `${name}: ${said}${failed}`);
  return said;
}

test("an answer is streamed", { skip }, async () => {
  assert.match(await run("streaming.ts", "What is a tide?"), /.{20}[^]*\n\[end_turn, \d+ tokens\]\n$/);
});

test("a stream that was cut is read to its end", { skip }, async () => {
  const [before, after] = (await run("resume.ts")).split("\n-- cut, and back again --\n");
  assert.ok(before.length > 10 && after.length > 20, `${before} | ${after}`);
  assert.match(after, /\n\[whole\]\n$/);
});

test("a conversation is kept", { skip }, async () => {
  const said = await run("conversation.ts");
  assert.match(said, /> My order is 7741\.\n[^]+> Where is it\?\n[^]+\[example-[0-9a-f-]{36} has 2 turns\]\n$/);
});

test("who waits is served, and what is late is told so", { skip }, async () => {
  const all = (await run("priority.ts")).trim().split("\n");
  assert.equal(all.filter((line) => /^background +\d+ tokens after/.test(line)).length, 5, all.join("\n"));
  assert.equal(all.filter((line) => /^interactive +\d+ tokens after/.test(line)).length, 1, all.join("\n"));
  assert.match(await run("priority.ts", "20"), /^interactive 504 deadline_passed after/m);
});
