// Everything else of the API, in the SDK's own calls: files, batches, skills, models.

import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";
import { afterEach, test } from "node:test";
import Anthropic, { toFile } from "@anthropic-ai/sdk";
import { ask, baseURL, client, model, simulate, upstreamAtRest } from "./scripted.mjs";

afterEach(() => upstreamAtRest());

for (const size of [40, 300_000]) {
  test(`a file of ${size} bytes is uploaded, listed, downloaded and deleted`, async () => {
    const content = Buffer.alloc(size, "tide ");
    const made = await client.files.upload({ file: await toFile(content, "output.bin") });
    assert.deepEqual([made.type, made.filename, made.size_bytes], ["file", "output.bin", size]);
    assert.equal((await client.files.retrieveMetadata(made.id)).id, made.id);
    assert.equal((await client.files.list({ limit: 1 })).data[0].id, made.id);
    const back = Buffer.from(await (await client.files.download(made.id)).arrayBuffer());
    assert.ok(back.equals(content));
    await client.files.delete(made.id);
    await assert.rejects(client.files.retrieveMetadata(made.id), Anthropic.NotFoundError);
  });
}

test("a batch is made, polled, and its results are read", async () => {
  const batches = client.messages.batches;
  const requests = [
    { custom_id: "good", params: ask("one") },
    { custom_id: "bad", params: { model, max_tokens: 10, messages: [] } },
  ];
  const made = await batches.create({ requests }, simulate({ batch_ms: 200 }));
  let batch = made;
  for (let n = 0; n < 200 && batch.processing_status !== "ended"; n += 1) {
    await pause(50);
    batch = await batches.retrieve(made.id);
  }
  assert.ok(batch.results_url.startsWith(baseURL), batch.results_url);
  const kinds = {};
  for await (const line of await batches.results(made.id)) kinds[line.custom_id] = line.result.type;
  assert.deepEqual(kinds, { good: "succeeded", bad: "errored" });
  assert.equal((await batches.list({ limit: 1 })).data[0].id, made.id);
  await batches.delete(made.id);
});

test("a skill comes and goes", async () => {
  const text = "---\nname: tides\ndescription: Knows the tides.\n---\nLook it up.\n";
  const files = [await toFile(Buffer.from(text), "tides/SKILL.md")];
  const made = await client.skills.create({ files, display_name: `tides ${Date.now()}` });
  assert.equal((await client.skills.retrieve(made.id)).id, made.id);
  for await (const version of client.skills.versions.list(made.id)) {
    await client.skills.versions.delete(version.id, { skill_id: made.id });
  }
  await client.skills.delete(made.id);
  await assert.rejects(client.skills.retrieve(made.id), Anthropic.NotFoundError);
});
