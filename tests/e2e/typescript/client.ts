// Submits, finds and pages with a client that is made from the OpenAPI document; prints what it got.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };

const [baseUrl = "", key = "", tag = ""] = process.argv.slice(2);
const client = createClient<paths>({
  baseUrl,
  headers: { Authorization: `Bearer ${key}` },
  querySerializer: { array: { style: "form", explode: false } },
});

const content = { subject: "Hello", data: { a: [1, { b: null }] } };
const order: components["schemas"]["Submit"] = {
  channel: "email",
  recipient: "ada@example.com",
  content,
  metadata: { order: 7 },
  tag,
};

// Sends the order with an idempotency key; returns its id, and whether it was stored before.
async function submit(): Promise<[string, boolean]> {
  const { data, error, response } = await client.POST("/v1/notifications", {
    params: { header: { "Idempotency-Key": `${tag}-1` } },
    body: order,
  });
  if (error) throw new Error(error.detail ?? error.title);
  return [data.id, response.headers.get("Idempotent-Replayed") === "true"];
}

async function submitBatch(count: number): Promise<string[]> {
  const { data, error } = await client.POST("/v1/notifications/batch", {
    body: { notifications: Array.from({ length: count }, () => order) },
  });
  if (error) throw new Error(error.detail ?? error.title);
  return data.results.map((result) => {
    if (!("id" in result)) throw new Error(result.problem.title);
    return result.id;
  });
}

async function refusedField(): Promise<string | undefined> {
  const { error } = await client.POST("/v1/notifications", {
    body: { ...order, channel: "sms", recipient: "1" },
  });
  return error?.errors?.[0]?.field;
}

async function find(id: string) {
  const { data, error } = await client.GET("/v1/notifications/{id}", {
    params: { path: { id }, query: { include: ["content"] } },
  });
  if (error) throw new Error(error.detail ?? error.title);
  return { queue: data.queue, metadata: data.metadata, content: data.content };
}

async function pages(): Promise<string[][]> {
  const found: string[][] = [];
  let cursor: string | null | undefined;
  do {
    const { data, error } = await client.GET("/v1/notifications", {
      params: {
        query: {
          tag: [tag],
          status: ["queued", "scheduled"],
          limit: 2,
          ...(cursor ? { cursor } : {}),
        },
      },
    });
    if (error) throw new Error(error.detail ?? error.title);
    found.push(data.items.map((item) => item.id));
    cursor = data.next_cursor;
  } while (cursor);
  return found;
}

const [id, wasStored] = await submit();
const [again, isReplay] = await submit();
const batch = await submitBatch(4);
console.log(
  JSON.stringify({
    ids: [id, ...batch],
    again,
    replayed: [wasStored, isReplay],
    refused: await refusedField(),
    found: await find(id),
    pages: await pages(),
  }),
);
