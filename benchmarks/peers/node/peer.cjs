// What the peers on Node share: the commands `fill COUNT JSON`, `work` and `serve PORT PROCESSES`.
// The submit app is node:http on node:cluster, with the route and the document of Notifier.
"use strict";
const cluster = require("node:cluster");
const http = require("node:http");

const BATCH = 1000;
const ROUTE = "/v1/notifications";
const PRIORITIES = ["high", "medium", "low"];

exports.CONNECTIONS = 10;
exports.queueOf = (one) => `${one.channel}.${one.priority}`;

// A peer has open(), which resolves to { enqueue(one), enqueueMany(many), close() }, and work().
exports.run = async (peer) => {
  const [command, ...words] = process.argv.slice(2);
  if (command === "work") await peer.work();
  else if (command === "fill") await fill(peer, Number(words[0]), JSON.parse(words[1]));
  else if (command === "serve") await serve(peer, Number(words[0]), Number(words[1]));
  else throw new Error(`no command ${command}: fill, work or serve`);
};

async function fill(peer, count, one) {
  const client = await peer.open();
  for (let done = 0; done < count; done += BATCH) {
    await client.enqueueMany(Array(Math.min(BATCH, count - done)).fill(one));
  }
  await client.close();
}

async function serve(peer, port, processes) {
  if (cluster.isPrimary) {
    for (let number = 0; number < processes; number += 1) cluster.fork();
    return;
  }
  const client = await peer.open();
  const server = http.createServer((request, response) => {
    answer(client, request).then(
      ([status, body]) => send(response, status, body),
      (error) => send(response, 500, { detail: String(error) }),
    );
  });
  server.listen(port, "127.0.0.1");
}

function send(response, status, body) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

async function answer(client, request) {
  if (request.url === "/pid") return [200, process.pid];
  if (request.method !== "POST" || request.url !== ROUTE) return [404, { detail: "no such route" }];
  const one = parse(await body(request));
  if (!isValid(one)) return [422, { detail: "no valid notification" }];
  return [202, { id: String(await client.enqueue(one)), status: "queued" }];
}

async function body(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function isValid(one) {
  return (
    one !== null &&
    typeof one.channel === "string" &&
    typeof one.recipient === "string" &&
    PRIORITIES.includes(one.priority) &&
    typeof one.content?.subject === "string" &&
    typeof one.content.body === "string" &&
    typeof one.content.data === "object"
  );
}
