// BullMQ on Redis. BENCH_KEEPS_JOBS says whether its default is left alone, which keeps finished
// jobs, or whether they are removed (`removeOnComplete`).
"use strict";
const { Queue, Worker } = require("bullmq");
const { perform } = require("./job.cjs");
const { queueOf, run: main } = require("./peer.cjs");

const connection = { path: process.env.BENCH_REDIS_SOCKET, maxRetriesPerRequest: null };
const removed = process.env.BENCH_KEEPS_JOBS === "1" ? {} : { removeOnComplete: { count: 0 } };

const names = process.env.BENCH_QUEUE_NAMES.split(" ");

async function open() {
  const queues = new Map(names.map((name) => [name, new Queue(name, { connection })]));
  await Promise.all([...queues.values()].map((queue) => queue.waitUntilReady()));
  const queue = (one) => queues.get(queueOf(one));
  return {
    enqueue: async (one) => (await queue(one).add("send", one)).id,
    enqueueMany: (many) => queue(many[0]).addBulk(many.map((data) => ({ name: "send", data }))),
    close: () => Promise.all([...queues.values()].map((one) => one.close())),
  };
}

async function work() {
  const options = { connection, concurrency: Number(process.env.BENCH_CONCURRENCY), ...removed };
  const workers = names.map((name) => new Worker(name, async () => perform(), options));
  for (const worker of workers) worker.on("error", (error) => console.error(error));
  process.on("SIGTERM", () => Promise.all(workers.map((one) => one.close())).then(process.exit));
}

main({ open, work });
