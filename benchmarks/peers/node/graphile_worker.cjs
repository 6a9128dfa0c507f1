// graphile-worker on Postgres. A finished job is deleted: nothing is kept of it.
//
// Jobs are fetched in batches of `localQueue.size` and deleted in batches, as its performance page
// advises. A named queue of it would run its jobs one after another, so a job names none.
"use strict";
const { Logger, makeWorkerUtils, run } = require("graphile-worker");
const { perform } = require("./job.cjs");
const { CONNECTIONS, run: main } = require("./peer.cjs");

const connectionString = process.env.BENCH_DATABASE_URL;
const logger = new Logger(() => (level, message) => {
  if (level === "error" || level === "warning") console.error(message);
});

async function open() {
  const utils = await makeWorkerUtils({ connectionString, maxPoolSize: CONNECTIONS, logger });
  return {
    enqueue: async (one) => (await utils.addJob("send", one)).id,
    enqueueMany: (many) =>
      utils.addJobs(many.map((payload) => ({ identifier: "send", payload }))),
    close: () => utils.release(),
  };
}

async function work() {
  const runner = await run({
    taskList: { send: perform },
    preset: {
      worker: {
        connectionString,
        logger,
        maxPoolSize: CONNECTIONS,
        concurrentJobs: Number(process.env.BENCH_CONCURRENCY),
        localQueue: { size: Number(process.env.BENCH_BATCH) },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    },
  });
  await runner.promise;
}

main({ open, work });
