// The page "Play": a start button, then what the models do. CONTENTS says what was built; see publish/playground.py.

const MEGABYTE = 1e6;

async function readSlabs(file) {
  const shares = (levels, limit = 1) => Float32Array.from(levels, (level) => (level / LEVELS) * limit);
  const bit = (masks, value) => Uint8Array.from(masks, (mask) => (mask & value ? 1 : 0));
  return Promise.all(file.slabs.map(async (slab) => {
    const masks = await unpack(slab.masks);
    return {
      title: slab.title, twin: slab.twin, depth: file.depth, brain: bit(masks, 1), eroded: bit(masks, 2), lesion: bit(masks, 4),
      image: shares(await unpack(slab.image)), healthy: shares(await unpack(slab.healthy)),
      ...(file.floor && { mean: shares(await unpack(slab.mean)),
        deviation: shares(await unpack(slab.deviation), file.deviation_limit) }),
    };
  }));
}

const floorOf = ({ floor, contrast }) => (floor
  ? [{ ...floor, name: "floor", kind: "floor", label: `${floor.label} (no network)`, darker: contrast === "T1" }] : []);

function freshState(models, file, slabs, palette) {
  const patched = models.find((one) => one.kind === "diffusion" && one.box < SIDE);
  const first = models.find((one) => one.kind === "diffusion");
  const state = {
    models, slabs, palette, busy: false, levels: first?.alphaBars.length ?? 1,
    middle: Math.floor(file.depth / 2) * PIXELS,
    set: { own: true, timestep: (patched ?? first)?.timestep ?? 0, seed: 1,
      box: patched?.box ?? SIDE / 2, stride: patched?.stride ?? SIDE / 2 },
    methods: [...models, ...floorOf(file)],
    take(number) {
      state.slab = slabs[number];
      state.work = slate(state.slab);
      state.all = state.methods.map((method) => results(method, state.slab.depth));
    },
    outline: () => border(turned(state.work.truth.subarray(state.middle, state.middle + PIXELS)), SIDE),
  };
  state.take(0);
  return state;
}

// What is said when all maps are there.
function verdict(state, compare, provider) {
  const scores = compare.cards.filter((one) => !one.node.hidden)
    .map((one) => `${one.method.label}: ${one.scores.textContent}.`);
  const slowest = state.all.reduce((a, b) => (b.milliseconds > a.milliseconds ? b : a));
  const where = provider === "webgpu" ? "WebGPU" : "one WebAssembly thread";
  const time = slowest.passes ? ` ${slowest.method.label} rebuilt the slice in ${Math.round(slowest.milliseconds)} ms: `
    + `${slowest.passes} ${slowest.passes === 1 ? "pass" : "passes"}, ${where}, this machine.` : "";
  return scores.join(" ") + time;
}

function assemblePlay(state, engine, fail) {
  let [turn, running, pending] = [0, Promise.resolve(), false];
  const run = () => {
    const mine = (turn += 1);
    const wanted = () => mine === turn;
    pending = false;
    state.busy = true;
    const go = () => {
      if (!pending) return true;
      run();
      return false;
    };
    const done = () => {
      state.busy = false;
      compare.draw();
      compare.speak(verdict(state, compare, engine.provider));
    };
    const began = () => wanted() && runAll(engine, state, wanted, { show: compare.drawOne, go, done });
    running = running.then(began).catch(fail);
  };
  // While a hand moves, a run that is under way gets its middle slice done first.
  const changed = (what, moving) => {
    if (moving && state.busy) pending = true;
    else run();
    if (what === "noise" || !moving) boxes?.update();
    if (!moving) compare.draw();
  };
  const slice = select("slice", state.slabs.map(({ title }) => title), "slice");
  const paint = paintStep(state, changed);
  const compare = compareStep(state, changed);
  const noisy = state.models.some((one) => one.kind === "diffusion");
  const boxes = noisy ? boxStep(state, engine.predict, fail) : null;
  slice.input.addEventListener("change", () => {
    state.take(slice.input.selectedIndex);
    paint.draw();
    changed("slice", false);
  });
  compare.read();
  paint.draw();
  changed("slice", false);
  const top = make("div", { class: "top even" }, slice.node);
  return make("div", { "data-running": engine.provider }, top, paint.node, compare.node, ...(boxes ? [boxes.node] : []));
}

function startPanel(root, contents) {
  const group = select("models", contents.groups.map(({ label }) => label), "group");
  const said = status("start");
  const begin = button("", "start", () => open(), "start");
  const body = make("div", {});
  const at = () => contents.groups[group.input.selectedIndex];
  let engine = null;
  const bytes = () => contents.runtimes["gpu" in navigator ? "webgpu" : "wasm"] + at().bytes;
  const label = () => (begin.textContent = `${engine ? "Change" : "Start"} the models (${Math.round(bytes() / MEGABYTE)} MB)`);
  const fail = (error) => {
    begin.disabled = false;
    said.textContent = `The models do not run in this browser (${error.message}). The picture shows a recorded run.`;
    said.classList.add("failed");
    root.dataset.failed = "true";
  };
  const open = async () => {
    begin.disabled = true;
    said.classList.remove("failed");
    const tell = (words) => (said.textContent = `${words} …`);
    const chosen = at();
    const models = contents.models.filter(({ name }) => chosen.models.includes(name)).map((model) => ({ ...model }));
    try {
      tell("loading the slices");
      const file = await loadFile(root.dataset.folder, chosen.slices);
      const [slabs, palette] = await Promise.all([readSlabs(file), unpack(contents.palette)]);
      engine?.stop();
      const provider = await bestProvider(contents.runtimes);
      engine = await openBest(root.dataset.folder, provider, models, tell);
      const state = freshState(models, file, slabs, palette);
      root.play = { state, engine, noiseField }; // for the console, and for tests
      const credit = file.credit ? [make("p", { class: "credit" }, file.credit)] : [];
      body.replaceChildren(assemblePlay(state, engine, fail), ...credit);
      root.querySelector(".recorded")?.remove();
      said.textContent = `Running: ${chosen.label}, by ${engine.provider === "webgpu" ? "WebGPU" : "WebAssembly"}.`;
      begin.disabled = false;
      label();
    } catch (error) {
      fail(error);
    }
  };
  group.input.addEventListener("change", label);
  label();
  root.dataset.ready = "true";
  const lead = make("div", { class: "starter" }, group.node, begin);
  return [lead, said, body];
}

function startPlay(contents) {
  const root = document.getElementById("pddm-play");
  const picture = root.querySelector(".recorded");
  root.classList.add("pddm-figure", "pddm-play");
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "Playground: the models run in this page");
  const [lead, said, body] = startPanel(root, contents);
  root.replaceChildren(make("style", {}, STYLE), lead, said, ...(picture ? [picture] : []), body);
}

startPlay(CONTENTS);
