// The service "analyzer": its methods answer in a queue group, and each instance alone on a subject of its own, which it
// announces in its metadata. Usage: node analyzer.js <url> <instance> [load]. Prints "ready" once the server knows it.
import { connect, JSONCodec } from "nats";

const [url, instance, load] = process.argv.slice(2);
const { protocol, username, password, host } = new URL(url);
const nc = await connect({
  servers: `${protocol}//${host}`,
  user: decodeURIComponent(username) || undefined,
  pass: decodeURIComponent(password) || undefined,
});
const json = JSONCodec();

const methods = {
  words: ({ text }) => ({ words: text.split(/\s+/).filter(Boolean).length, by: instance }),
  identity: (_, headers) => ({
    effect: headers.get("Statewright-Effect-Id"),
    attempt: Number(headers.get("Statewright-Attempt")),
    deadline: Number(headers.get("Statewright-Deadline")),
  }),
  refuse: () => {
    throw Object.assign(new Error("this language is not supported"), { code: 422 });
  },
  stumble: () => {
    throw new Error("out of memory");
  },
};

const answer = (method) => (error, message) => {
  if (error) return;
  try {
    message.respond(json.encode(method(message.data.length ? json.decode(message.data) : {}, message.headers)));
  } catch (failure) {
    message.respondError(failure.code ?? 500, failure.message);
  }
};

const service = await nc.services.add({
  name: "analyzer",
  version: "1.4.0",
  description: "counts words",
  metadata: {
    "statewright-instance": instance,
    "statewright-interfaces": "text-analysis, word-count",
    "statewright-tier": "high",
    language: "JavaScript",
  },
  statsHandler: async () => ({ load: Number(load ?? 0) }),
});
for (const [name, method] of Object.entries(methods)) {
  service.addEndpoint(name, { subject: `statewright.calls.analyzer.${name}`, handler: answer(method) });
  service.addEndpoint(`${name}-${instance}`, {
    subject: `statewright.calls.analyzer.${name}.${instance}`,
    handler: answer(method),
  });
}
await nc.flush();
console.log("ready");
process.on("SIGTERM", async () => {
  await service.stop();
  await nc.drain();
});
