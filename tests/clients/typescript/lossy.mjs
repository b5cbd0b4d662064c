// A way to the gateway on which answers get lost: what an SDK's own retry is for.

import { createServer } from "node:http";
import { once } from "node:events";
import { baseURL } from "./scripted.mjs";

const ofTheConnection = ["host", "connection", "transfer-encoding", "content-length", "content-encoding", "accept-encoding"];

/**
 * A proxy that lets the first so many answers come whole and then drops them with their connection;
 * `passed` lists what came by: retry count of the request, status, whether it was lost.
 */
export async function lossy(losses) {
  const passed = [];
  const proxy = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const headers = Object.fromEntries(Object.entries(request.headers).filter(([name]) => !ofTheConnection.includes(name)));
    const answer = await fetch(baseURL + request.url, { method: request.method, headers, body: Buffer.concat(chunks) });
    const body = Buffer.from(await answer.arrayBuffer());
    const lost = passed.length < losses;
    passed.push([request.headers["x-stainless-retry-count"], answer.status, lost]);
    if (lost) {
      request.socket.destroy();
      return;
    }
    const lines = [...answer.headers].filter(([name]) => !ofTheConnection.includes(name));
    response.writeHead(answer.status, { ...Object.fromEntries(lines), connection: "close", "content-length": body.length });
    response.end(body);
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const close = () => new Promise((closed) => proxy.close(closed));
  return { url: `http://127.0.0.1:${proxy.address().port}`, passed, close };
}
