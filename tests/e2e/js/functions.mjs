// The functions that workers offer, once for each engine of the SDK. Both sets behave the same.
import { Never } from "@resonatehq/sdk";
import { emit, engine, hold, pid } from "./support.mjs";

const forEver = () => new Promise(() => setInterval(() => {}, 1 << 30));

// Steps and leaves: plain functions, the same for both engines.

async function add(ctx, a, b) {
  emit("ran", { func: "add", id: ctx.id });
  return a + b;
}

async function echo(ctx, value) {
  emit("ran", { func: "echo", id: ctx.id });
  return value;
}

async function whoami(ctx) {
  emit("ran", { func: "whoami", id: ctx.id });
  return pid;
}

async function step(ctx, name) {
  emit("step", { name });
  return name;
}

async function second(ctx) {
  emit("step", { name: "second" });
  if (hold) {
    emit("holding");
    await forEver();
  }
  return "second";
}

const broken = async (ctx, message) => {
  throw new Error(message);
};

const generator = {
  *steps(ctx, n) {
    const names = [];
    for (let i = 0; i < n; i++) names.push(yield* ctx.run(step, `step-${i}`));
    return names;
  },
  *relay(ctx) {
    return [yield* ctx.run(step, "first"), yield* ctx.run(second)];
  },
  *remote(ctx, group, pairs) {
    const futures = [];
    for (const [a, b] of pairs) futures.push(yield* ctx.beginRpc("add", a, b, ctx.options({ target: group })));
    const sums = [];
    for (const future of futures) sums.push(yield* future);
    return sums;
  },
  *nap(ctx, ms, times) {
    for (let i = 0; i < times; i++) {
      yield* ctx.sleep(ms);
      yield* ctx.run(step, `woke-${i}`);
    }
    return "rested";
  },
  *launch(ctx, group, value) {
    const future = yield* ctx.detached("echo", value, ctx.options({ target: group }));
    return future.id;
  },
  *fail(ctx, message) {
    yield* ctx.run(broken, message, ctx.options({ retryPolicy: new Never() }));
  },
  *rescue(ctx, group, message) {
    try {
      yield* ctx.rpc("fail", message, ctx.options({ target: group }));
    } catch (error) {
      return `rescued: ${error.message}`;
    }
    return "nothing failed";
  },
  *approval(ctx) {
    const decision = yield* ctx.promise();
    emit("waiting", { id: decision.id });
    return { decision: yield* decision };
  },
};

const asynchronous = {
  async steps(ctx, n) {
    const names = [];
    for (let i = 0; i < n; i++) names.push(await ctx.run(step, `step-${i}`));
    return names;
  },
  async relay(ctx) {
    return [await ctx.run(step, "first"), await ctx.run(second)];
  },
  async remote(ctx, group, pairs) {
    return await Promise.all(pairs.map(([a, b]) => ctx.rpc("add", a, b, ctx.options({ target: group }))));
  },
  async nap(ctx, ms, times) {
    for (let i = 0; i < times; i++) {
      await ctx.sleep(ms);
      await ctx.run(step, `woke-${i}`);
    }
    return "rested";
  },
  async launch(ctx, group, value) {
    return (await ctx.detached("echo", value, ctx.options({ target: group }))).id;
  },
  async fail(ctx, message) {
    await ctx.run(broken, message);
  },
  async rescue(ctx, group, message) {
    try {
      await ctx.rpc("fail", message, ctx.options({ target: group }));
    } catch (error) {
      return `rescued: ${error.message}`;
    }
    return "nothing failed";
  },
  async approval(ctx) {
    const decision = ctx.promise();
    emit("waiting", { id: decision.id });
    return { decision: await decision };
  },
};

export function register(resonate) {
  const workflows = engine === "async" ? asynchronous : generator;
  for (const func of [add, echo, whoami]) resonate.register(func.name, func);
  for (const [name, func] of Object.entries(workflows)) resonate.register(name, func);
}
