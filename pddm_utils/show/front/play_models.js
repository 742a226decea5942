// Getting the models into the page: files as scripts, which a page opened from a disk may load too, and the worker.

async function inflate(text) {
  const letters = atob(text);
  const packed = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) packed[i] = letters.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

// A file of the playground; it puts its content into `pddmPlay` under its own name.
function loadFile(folder, name) {
  const loaded = (self.pddmPlay ??= {});
  return new Promise((resolve, reject) => {
    if (loaded[name]) return resolve(loaded[name]);
    const script = make("script", { src: `${folder}${name}.js` });
    script.onload = () => resolve(loaded[name]);
    script.onerror = () => reject(new Error(`${name}.js could not be loaded`));
    document.head.append(script);
  });
}

function startWorker() {
  const address = URL.createObjectURL(new Blob([WORKER], { type: "text/javascript" }));
  const worker = new Worker(address);
  const waiting = new Map();
  let count = 0;
  worker.onmessage = ({ data: { id, result, failure } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (failure === undefined) resolve(result);
    else reject(new Error(failure));
  };
  worker.onerror = (event) => {
    event.preventDefault();
    for (const { reject } of waiting.values()) reject(new Error(event.message || "the worker stopped"));
  };
  const ask = (act, words, transfer = []) => new Promise((resolve, reject) => {
    waiting.set((count += 1), { resolve, reject });
    worker.postMessage({ id: count, act, ...words }, transfer);
  });
  return { ask, stop: () => worker.terminate() };
}

// WebGPU, where a graphics card is behind it and WebAssembly can wait for its answers.
async function bestProvider(runtimes) {
  if (!runtimes.webgpu || !("Suspending" in WebAssembly)) return "wasm";
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return adapter && !(adapter.info ?? adapter).isFallbackAdapter ? "webgpu" : "wasm";
}

// A runtime with the models of one group; `tell` says how far it is.
async function openModels(folder, provider, models, tell) {
  tell("loading the runtime");
  const runtime = await loadFile(folder, `runtime-${provider}`);
  const worker = startWorker();
  try {
    const wasm = await inflate(runtime.wasm);
    await worker.ask("open", { script: runtime.script, wasm, provider }, [wasm]);
    for (const model of models) {
      tell(`loading ${model.label}`);
      const file = await loadFile(folder, `model-${model.name}`);
      const network = await inflate(file.network);
      if (file.fields) model.fields = new Int8Array(await inflate(file.fields));
      Object.assign(model, { alphaBars: file.alpha_bars, step: file.step });
      await worker.ask("add", { name: model.name, model: new Uint8Array(network) });
      tell(`warming up ${model.label}`);
      await worker.ask("run", { name: model.name, x: new Float32Array(PIXELS), t: 0, side: SIDE });
    }
  } catch (error) {
    worker.stop();
    throw error;
  }
  const predict = (name, x, t) => worker.ask("run", { name, x, t, side: SIDE });
  return { provider, predict, stop: worker.stop };
}

// The same, with WebAssembly where WebGPU does not start.
async function openBest(folder, wanted, models, tell) {
  if (wanted === "wasm") return openModels(folder, "wasm", models, tell);
  return openModels(folder, wanted, models, tell).catch(() => openModels(folder, "wasm", models, tell));
}
