// A client: one command, one `result` or `error` event, then the end.
//
//   node client.mjs run      ID FUNC ARGS         run here; this process is a member of its group
//   node client.mjs rpc      ID FUNC ARGS TARGET  have some worker of the group TARGET run it
//   node client.mjs get      ID                   wait for what is already there
//   node client.mjs resolve  ID VALUE             settle a promise from outside
//   node client.mjs schedule ID CRON FUNC ARGS TARGET
//
// ARGS (a list) and VALUE are JSON.
import { register } from "./functions.mjs";
import { connect, emit, engine } from "./support.mjs";

const [command, id, ...rest] = process.argv.slice(2);
const resonate = connect();

// Where one engine answers with the value, the other answers with a handle.
async function outcome(call) {
  const answered = await call;
  return engine === "async" ? await answered.result() : answered;
}

async function answer() {
  switch (command) {
    case "run": {
      register(resonate);
      return await outcome(resonate.run(id, rest[0], ...JSON.parse(rest[1])));
    }
    case "rpc": {
      const options = resonate.options({ target: rest[2] });
      return await outcome(resonate.rpc(id, rest[0], ...JSON.parse(rest[1]), options));
    }
    case "get":
      return await (await resonate.get(id)).result();
    case "resolve": {
      const data = Buffer.from(JSON.stringify(JSON.parse(rest[0]))).toString("base64");
      return (await resonate.promises.resolve(id, { data })).state;
    }
    case "schedule": {
      const options = resonate.options({ target: rest[3] });
      await resonate.schedule(id, rest[0], rest[1], ...JSON.parse(rest[2]), options);
      return (await resonate.schedules.get(id)).cron;
    }
    default:
      throw new Error(`unknown command ${command}`);
  }
}

try {
  emit("result", { value: (await answer()) ?? null });
} catch (error) {
  emit("error", { message: String(error?.message ?? error) });
}
await resonate.stop();
process.stdout.write("", () => process.exit(0));
