// The comparison of comparison.py: methods side by side over slices and noise levels; anomaly maps have levels of
// 0-`limit`. With a kernel (`live`) it can ask for any other slice and noise level.

// Dice at one level, and the best that any level reaches.
function overlap(levels, lesion, level) {
  const inside = new Uint32Array(LEVELS + 1);
  const all = new Uint32Array(LEVELS + 1);
  let size = 0;
  levels.forEach((value, i) => {
    all[value] += 1;
    if (lesion[i]) (inside[value] += 1), (size += 1);
  });
  const result = { found: 0, dice: 0, best: 0, bestLevel: LEVELS, size };
  for (let value = LEVELS, hits = 0, found = 0; value >= 0; value--) {
    const dice = size ? (2 * hits) / (found + size) : NaN; // of the voxels above `value`
    if (dice > result.best) Object.assign(result, { best: dice, bestLevel: value });
    if (value === level) Object.assign(result, { found, dice });
    hits += inside[value];
    found += all[value];
  }
  return result;
}

async function loadScan(frames) {
  const [image, lesion, palette] = await Promise.all([frames.image, frames.lesion, frames.palette].map(unpack));
  const methods = await Promise.all(frames.methods.map(async (method) => ({
    ...method, reconstructions: await unpack(method.reconstructions), maps: await unpack(method.maps),
  })));
  return { ...frames, image, lesion, methods, heat: heats(palette), palette, found: tinted(frames.found_colour) };
}

// One scan, or several to choose from.
async function load(frames) {
  return frames.scans ? { ...frames, scans: await Promise.all(frames.scans.map(loadScan)) } : loadScan(frames);
}

// Colours by the square root: what little noise leaves shows too, and one scale serves all noise levels.
const rooted = steps.map((level) => Math.floor(Math.sqrt(level * LEVELS) + 0.5));

function methodBoard(method, data, size) {
  const captions = { reconstruction: "reconstruction", residual: "", found: "above the threshold" };
  const panels = Object.entries(captions).map(([name, text]) => panel(`${method.name}-${name}`, text, size));
  const dice = make("span", { role: "status", "aria-live": "polite", "data-dice": method.name });
  const threshold = slider(["threshold"], LEVELS, method.threshold, `${method.name}-threshold`);
  threshold.input.setAttribute("aria-label", `threshold, ${method.label}`);
  const bar = colourBar(data.heat);
  threshold.input.before(bar);
  const scale = (root) => fill(bar.getContext("2d"), LEVELS + 1, 1, (i) => data.heat[root ? rooted[i] : i]);
  const node = make("div", { class: "method", role: "group", "aria-label": method.label, style: `--method: ${method.colour}` },
    make("div", { class: "head" }, make("b", {}, method.label), dice),
    make("div", { class: "panels" }, ...panels.map((one) => one.node)),
    make("div", { class: "scale" }, threshold.node, ends(data.limit, "|x − x̂| (scaled intensity)")));
  return { node, panels, dice, threshold, scale };
}

function controls(data) {
  const slice = slider(["slice"], data.slices.length - 1, data.start[0], "slice");
  const noise = ["noise level t", make("sub", {}, "test")];
  const timestep = slider(noise, data.timesteps.length - 1, data.start[1], "timestep");
  const wipe = slider(["wipe the scan over the reconstruction"], data.size[1], 0, "wipe");
  const group = fresh();
  const map = choice("radio", "anomaly map (eroded, 3-D median)", "map", true, group);
  const residual = choice("radio", "residual |x − x̂|", "residual", false, group);
  const lesion = choice("checkbox", "outline the lesion", "outline", true);
  const found = choice("checkbox", "colour what is above the threshold", "overlay", true);
  const heat = choice("checkbox", "in the colours of the map", "heat", false);
  const root = choice("checkbox", "square-root colours", "root", true);
  const shown = make("fieldset", { class: "choices", "aria-label": "what is coloured and thresholded" },
    ...[map, residual, lesion, found, heat, root].map((one) => one.node));
  const node = make("div", { class: "top" }, slice.node, timestep.node, wipe.node);
  return { node, shown, slice, timestep, wipe, residual, lesion, found, heat, root };
}

// What the sliders point at, in the form in which the kernel answers too.
function packedView(data, controls) {
  const [slice, time] = [controls.slice.value, controls.timestep.value];
  const count = data.size[0] * data.size[1];
  const start = (time * data.slices.length + slice) * count;
  const cut = (values, from) => values.subarray(from, from + count);
  return {
    slice: data.slices[slice], height_mm: data.heights_mm[slice],
    timestep: data.timesteps[time], alpha_bar: data.alpha_bars[time],
    image: cut(data.image, slice * count), lesion: cut(data.lesion, slice * count),
    methods: data.methods.map((one) =>
      ({ reconstruction: cut(one.reconstructions, start), map: cut(one.maps, start) })),
  };
}

// What is shown of one method.
function drawMethod(method, board, { reconstruction, map }, view, data) {
  const { image, lesion, place } = view;
  const difference = (i) => Math.abs(image[i] - reconstruction[i]) / LEVELS / data.limit;
  const levels = view.residual
    ? Uint8Array.from(image, (_, i) => Math.floor(Math.min(1, difference(i)) * LEVELS + 0.5)) : map;
  const level = board.threshold.value;
  const { found, dice, best, bestLevel, size } = overlap(levels, lesion, level);
  const value = (of) => ((of * data.limit) / LEVELS).toFixed(3);
  const width = data.size[1];
  const [rebuilt, residual, marked] = board.panels;
  const name = view.residual ? "residual" : "anomaly map";
  const mixed = (grey, heat) => opaque(...data.palette.subarray(3 * heat, 3 * heat + 3)
    .reduce((colour, channel) => [...colour, Math.round((1 - 0.65) * grey + 0.65 * channel)], []));
  const at = (i) => (view.root ? rooted[levels[i]] : levels[i]);
  const colour = (i) => (view.heat ? mixed(image[i], at(i)) : data.found[image[i]]);
  rebuilt.draw((i) => greys[(i % width < view.wipe ? image : reconstruction)[i]],
    `Reconstruction by ${method.label}, ${place}${view.wipe ? `; the left ${view.wipe} columns show the scan` : ""}`);
  residual.draw((i) => data.heat[at(i)], `${name} of ${method.label}, ${place}`);
  residual.say(name);
  marked.draw((i) => (view.overlay && levels[i] > level ? colour(i) : greys[image[i]]),
    `Scan; ${found} voxels are above the threshold of ${method.label}, ${place}`);
  for (const one of board.panels) one.outline(view.path, data.lesion_colour);
  if (view.wipe) rebuilt.line(`M${view.wipe} 0v${data.size[0]}`, data.found_colour, 2);
  board.scale(view.root);
  board.threshold.say(`> ${value(level)}`);
  board.dice.textContent = size
    ? `Dice ${dice.toFixed(3)} in this slice (best possible: ${best.toFixed(3)} at ${value(bestLevel)})`
    : `no lesion in this slice, ${found} voxels above the threshold`;
}

// Asks the kernel to run the models on a slice and at a noise level of the reader's choice.
function runner(data, model, show) {
  const number = (text, name, last, value) => {
    const input = make("input", { type: "number", min: 0, max: last, step: 1, value, "data-control": name });
    return { node: make("label", {}, text, input), input };
  };
  const slice = number("slice", "run-slice", data.depth - 1, data.slices[data.start[0]]);
  const timestep = number("t", "run-timestep", data.num_timesteps - 1, data.timesteps[data.start[1]]);
  const button = make("button", { type: "button", "data-control": "run" }, "Run the models");
  const said = make("span", { role: "status", "aria-live": "polite", "data-say": "run" });
  const node = make("fieldset", { class: "choices", "aria-label": "run the models with this notebook's kernel" },
    slice.node, timestep.node, button, said);
  const state = (running, words) => {
    button.disabled = running;
    node.setAttribute("aria-busy", running);
    said.textContent = words;
  };
  button.onclick = () => {
    state(true, "running …");
    model.send({ kind: "run", slice: Number(slice.input.value), timestep: Number(timestep.input.value) });
  };
  const answer = async (message) => {
    if (message.kind === "failed") return state(false, message.message);
    const { image, lesion, methods, ...facts } = message.view;
    const both = async (one) => ({ reconstruction: await unpack(one.reconstruction), map: await unpack(one.map) });
    show({ ...facts, image: await unpack(image), lesion: await unpack(lesion),
      methods: await Promise.all(methods.map(both)) });
    state(false, `shown: slice ${facts.slice}, t = ${facts.timestep}, run just now`);
  };
  model.on("msg:custom", answer);
  return { node, leave: () => model.off("msg:custom", answer) };
}

function assembleScan(data, model) {
  const size = { height: data.size[0], width: data.size[1] };
  const chosen = controls(data);
  const original = panel("image", "scan x", size);
  const truth = panel("lesion", "lesion mask", size);
  const boards = data.methods.map((method) => methodBoard(method, data, size));
  let ran = null; // what the kernel sent last, until a slider moves on
  const update = (event) => {
    if ([chosen.slice.input, chosen.timestep.input].includes(event?.target)) ran = null;
    const view = ran ?? packedView(data, chosen);
    view.place = `slice ${view.slice}, t_test ${view.timestep}`;
    view.path = chosen.lesion.value ? border(view.lesion, size.width) : "";
    Object.assign(view, { residual: chosen.residual.value, overlay: chosen.found.value, heat: chosen.heat.value, root: chosen.root.value,
      wipe: chosen.wipe.value });
    chosen.slice.say(`${view.slice} (z = ${view.height_mm} mm)`);
    chosen.timestep.say(`${view.timestep} (ᾱ = ${view.alpha_bar.toFixed(3)})`);
    chosen.wipe.say(`${Math.round((100 * view.wipe) / size.width)} %`);
    original.draw((i) => greys[view.image[i]], `Scan, ${view.place}`);
    original.outline(view.path, data.lesion_colour);
    truth.draw((i) => greys[view.lesion[i] * LEVELS], `Lesion mask, ${view.place}`);
    data.methods.forEach((method, i) => drawMethod(method, boards[i], view.methods[i], view, data));
  };
  for (const board of boards)
    pick(board.panels[0], (x) => {
      chosen.wipe.input.value = x + 1;
      update();
    }, { look: "wiped" });
  const live = model.get("live") ? runner(data, model, (view) => {
    ran = view;
    update();
  }) : null;
  const sides = make("div", { class: "scan", role: "group", "aria-label": "scan and lesion mask" },
    make("div", { class: "panels" }, original.node, truth.node, chosen.shown));
  const board = make("div", { class: "board" }, sides, ...boards.map((one) => one.node));
  return { nodes: [chosen.node, ...(live ? [live.node] : []), board], update, leave: live?.leave };
}

function assemble(data, model) {
  if (!data.scans) return assembleScan(data, model);
  const subject = select("scan", data.scans.map(({ title }) => title), "scan");
  const body = make("div", {});
  let shown = null;
  const open = () => {
    shown = assembleScan(data.scans[subject.input.selectedIndex], { get: () => false });
    body.replaceChildren(...shown.nodes);
  };
  const update = (event) => {
    if (event?.target === subject.input) open();
    shown.update(event);
  };
  open();
  return { nodes: [make("div", { class: "top" }, subject.node), body], update };
}

export default figure("comparison", load, assemble);
