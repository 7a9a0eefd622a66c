// What every program here shares: the connection, and events as JSON lines on stdout.
//
// Settings come from the environment:
//   KEPT_URL     the server
//   KEPT_GROUP   the worker group to join (default "default")
//   KEPT_PID     the name of this process (default: a random one)
//   KEPT_TTL     lease time of acquired tasks, in ms
//   KEPT_ENGINE  "generator" (default) or "async": which engine of the SDK to use
//   KEPT_HOLD    when set, the function `relay` stops for ever in its second step
import * as generatorEngine from "@resonatehq/sdk";
import * as asyncEngine from "@resonatehq/sdk/async";

export const engine = process.env.KEPT_ENGINE ?? "generator";
export const pid = process.env.KEPT_PID ?? `js-${process.pid}`;
export const hold = Boolean(process.env.KEPT_HOLD);

export function emit(event, fields = {}) {
  process.stdout.write(`${JSON.stringify({ event, pid, ...fields })}\n`);
}

function note(level, fields, message) {
  process.stderr.write(`${JSON.stringify({ level, message, ...fields })}\n`);
}

export function connect() {
  const { Resonate } = engine === "async" ? asyncEngine : generatorEngine;
  return new Resonate({
    url: process.env.KEPT_URL,
    group: process.env.KEPT_GROUP ?? "default",
    pid,
    ttl: Number(process.env.KEPT_TTL ?? 60000),
    logger: {
      debug() {},
      info(fields, message) {
        if (message === "adapter connected" || message === "adapter reconnected") emit("connected");
      },
      warn: (fields, message) => note("warn", fields, message),
      error: (fields, message) => note("error", fields, message),
    },
  });
}
