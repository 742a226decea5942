// Runs the networks beside the page, so that painting stays smooth. One message in, one out, in the same order.

let ort = null;
const sessions = new Map();

const acts = {
  async open({ script, wasm, provider }) {
    const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    ort = await import(address);
    ort.env.logLevel = "error";
    ort.env.wasm.numThreads = 1; // more need headers that a file or a plain server does not send
    ort.env.wasm.wasmBinary = wasm;
    acts.provider = provider;
  },
  async add({ name, model }) {
    const options = { executionProviders: [acts.provider], logSeverityLevel: 3 }; // errors only
    sessions.set(name, await ort.InferenceSession.create(model, options));
  },
  async run({ name, x, t, side }) {
    const began = performance.now();
    const feeds = { x: new ort.Tensor("float32", x, [1, 1, side, side]), t: new ort.Tensor("float32", [t], [1]) };
    const { y } = await sessions.get(name).run(feeds);
    return { y: Float32Array.from(y.data), milliseconds: performance.now() - began };
  },
};

async function answer({ id, act, ...words }) {
  try {
    postMessage({ id, result: await acts[act](words) });
  } catch (error) {
    postMessage({ id, failure: String(error?.message ?? error) });
  }
}

// One after another: on WebGPU a pass waits for the graphics card, and the runtime takes no second one meanwhile.
let last = Promise.resolve();
onmessage = ({ data }) => {
  last = last.then(() => answer(data));
};
