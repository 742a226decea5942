// Draws a comparison from the trait `frames` of comparison.py: as an anywidget in a notebook, and in a page without
// a kernel. Slices come in display orientation; levels 0-255 stand for 0-1, in anomaly maps for 0-`limit`.

const LEVELS = 255;
const DARK = `--ink: #e6e8eb; --soft: #a9b1ba; --ground: #15191f; --line: #3c444d; --accent: #7db8ee;
  color-scheme: dark;`;
const STYLE = `
.pddm-comparison { --ink: #1f2328; --soft: #57606a; --ground: #ffffff; --line: #d0d7de; --accent: #1f6fb8;
  color-scheme: light; container-type: inline-size; box-sizing: border-box; padding: 0.75rem; color: var(--ink);
  background: var(--ground); border: 1px solid var(--line); border-radius: 6px;
  font: 0.875rem/1.4 system-ui, sans-serif; }
@media (prefers-color-scheme: dark) {
  html:not([data-theme="light"]):not(:has(body[data-jp-theme-light="true"])) .pddm-comparison { ${DARK} } }
html[data-theme="dark"] .pddm-comparison, body[data-jp-theme-light="false"] .pddm-comparison { ${DARK} }
.bd-content div.cell_output .text_html:has(> .pddm-comparison) { background: none !important; padding: 0 !important; }
.pddm-comparison * { box-sizing: border-box; }
.pddm-comparison :is(p, fieldset) { margin: 0; padding: 0; border: 0; min-width: 0; }
.pddm-comparison .top { display: grid; gap: 0.25rem 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr)); }
.pddm-comparison .title { font-weight: 600; margin-bottom: 0.4rem; }
.pddm-comparison .soft { color: var(--soft); }
.pddm-comparison .slider { display: grid; grid-template-columns: 1fr auto; column-gap: 0.75rem; }
.pddm-comparison .slider input { grid-column: 1 / -1; width: 100%; min-height: 1.9rem; margin: 0; }
.pddm-comparison input { accent-color: var(--accent); }
.pddm-comparison sub { font-size: 0.75em; }
.pddm-comparison output { font-variant-numeric: tabular-nums; }
.pddm-comparison .choices { display: flex; flex-wrap: wrap; gap: 0 1.1rem; margin: 0.25rem 0 0.75rem; }
.pddm-comparison .choices label { display: inline-flex; gap: 0.4rem; align-items: center; min-height: 1.9rem; }
.pddm-comparison .choices input { width: 1.05rem; height: 1.05rem; margin: 0; }
.pddm-comparison .board { display: grid; grid-template-columns: 1fr; gap: 1rem; }
.pddm-comparison .panels { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 0.5rem; }
.pddm-comparison .scan .panels { grid-template-columns: repeat(2, minmax(0, 1fr)); }
.pddm-comparison .method { border-left: 5px solid var(--method); padding-left: 0.6rem; }
.pddm-comparison .head { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem;
  margin-bottom: 0.3rem; }
.pddm-comparison .head b { font-weight: 600; }
.pddm-comparison .picture { position: relative; background: #000; line-height: 0; }
.pddm-comparison .picture canvas { width: 100%; height: auto; image-rendering: pixelated; }
.pddm-comparison .picture svg { position: absolute; inset: 0; width: 100%; height: 100%; fill: none; }
.pddm-comparison .picture span { position: absolute; bottom: 0.15rem; color: #fff; font-size: 0.7rem;
  line-height: 1.2; }
.pddm-comparison .caption { font-size: 0.8rem; line-height: 1.3; margin-top: 0.2rem; color: var(--soft);
  overflow-wrap: anywhere; }
.pddm-comparison .scale { margin-top: 0.5rem; }
.pddm-comparison .bar { grid-column: 1 / -1; width: calc(100% - 16px); height: 0.6rem; margin: 0.3rem 8px 0; }
.pddm-comparison .ends { display: flex; justify-content: space-between; gap: 0.5rem; font-size: 0.75rem;
  color: var(--soft); }
@container (min-width: 34rem) {
  .pddm-comparison .board { grid-template-columns: minmax(0, 1fr) minmax(0, 3.25fr); }
  .pddm-comparison .scan { grid-row: span 2; }
  .pddm-comparison .scan .panels { grid-template-columns: 1fr; gap: 0.75rem; } }
`;

async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const values = new Uint8Array(await new Response(stream).arrayBuffer());
  for (let i = 1; i < values.length; i++) values[i] += values[i - 1]; // a Uint8Array counts modulo 256
  return values;
}

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

let made = 0;
const fresh = () => `pddm-${(made += 1)}-${Math.random().toString(36).slice(2)}`;

function slider(label, last, value, name) {
  const id = fresh();
  const input = make("input", { type: "range", id, min: 0, max: last, step: 1, value, "data-control": name });
  input.disabled = last === 0;
  const shown = make("output", { for: id });
  const node = make("div", { class: "slider" }, make("label", { for: id }, ...label), shown, input);
  const say = (words) => {
    shown.textContent = words;
    input.setAttribute("aria-valuetext", words);
  };
  return { node, input, say };
}

function choice(type, text, name, checked, group = "") {
  const input = make("input", { type, "data-control": name, ...(group && { name: group }) });
  input.checked = checked;
  return { node: make("label", {}, input, text), input };
}

const opaque = (red, green, blue) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0; // little-endian RGBA

function fill(context, width, height, colour) {
  const picture = context.createImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = colour(i);
  context.putImageData(picture, 0, 0);
}

// A slice: voxels on a canvas of one pixel each, the lesion's border above it as a line of constant width.
function panel(name, caption, { height, width }) {
  const canvas = make("canvas", { width, height, role: "img", "data-panel": name });
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-hidden", "true");
  const right = make("span", { style: "left: 0.3rem" }, "R");
  const left = make("span", { style: "right: 0.3rem" }, "L");
  const words = make("div", { class: "caption" }, caption);
  const node = make("div", {}, make("div", { class: "picture" }, canvas, svg, right, left), words);
  const context = canvas.getContext("2d");
  const draw = (colour, alt) => {
    fill(context, width, height, colour);
    canvas.setAttribute("aria-label", alt);
  };
  const outline = (path, colour) => {
    svg.replaceChildren();
    if (!path) return;
    for (const [stroke, size] of [["#ffffff", 3.5], [colour, 1.8]]) {
      const line = document.createElementNS(svg.namespaceURI, "path");
      const look = { d: path, stroke, "stroke-width": size, "vector-effect": "non-scaling-stroke" };
      for (const [key, value] of Object.entries(look)) line.setAttribute(key, value);
      svg.append(line);
    }
  };
  return { node, draw, outline, say: (text) => (words.textContent = text) };
}

// The sides of the mask's voxels that face a voxel outside it.
function border(mask, width) {
  const height = mask.length / width;
  const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && mask[y * width + x] > 0;
  let path = "";
  for (let y = 0; y <= height; y++)
    for (let x = 0; x <= width; x++) {
      if (at(x, y) !== at(x, y - 1)) path += `M${x} ${y}h1`;
      if (at(x, y) !== at(x - 1, y)) path += `M${x} ${y}v1`;
    }
  return path;
}

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

// Colours of the levels 0-255: grey, grey under a colour, and the palette.
function colourTables(frames, palette) {
  const [red, green, blue] = [1, 3, 5].map((i) => parseInt(frames.found_colour.slice(i, i + 2), 16));
  const all = [...Array(LEVELS + 1).keys()];
  const mixed = (grey, part) => Math.round(0.35 * grey + 0.65 * part);
  return {
    grey: all.map((value) => opaque(value, value, value)),
    found: all.map((value) => opaque(mixed(value, red), mixed(value, green), mixed(value, blue))),
    heat: all.map((value) => opaque(...palette.subarray(3 * value, 3 * value + 3))),
  };
}

async function load(frames) {
  const [image, lesion, palette] = await Promise.all([frames.image, frames.lesion, frames.palette].map(unpack));
  const methods = await Promise.all(frames.methods.map(async (method) => ({
    ...method, reconstructions: await unpack(method.reconstructions), maps: await unpack(method.maps),
  })));
  return { ...frames, image, lesion, methods, colours: colourTables(frames, palette) };
}

function colourBar({ heat }) {
  const bar = make("canvas", { class: "bar", width: LEVELS + 1, height: 1, "aria-hidden": "true" });
  fill(bar.getContext("2d"), LEVELS + 1, 1, (i) => heat[i]);
  return bar;
}

function methodBoard(method, data, size) {
  const captions = { reconstruction: "reconstruction", residual: "", found: "above the threshold" };
  const panels = Object.entries(captions).map(([name, text]) => panel(`${method.name}-${name}`, text, size));
  const dice = make("span", { role: "status", "aria-live": "polite", "data-dice": method.name });
  const threshold = slider(["threshold"], LEVELS, method.threshold, `${method.name}-threshold`);
  threshold.input.setAttribute("aria-label", `threshold, ${method.label}`);
  threshold.input.before(colourBar(data.colours));
  const ends = make("div", { class: "ends", "aria-hidden": "true" },
    make("span", {}, "0"), make("span", {}, "|x − x̂| (scaled intensity)"), make("span", {}, data.limit.toFixed(2)));
  const node = make("section", { class: "method", "aria-label": method.label, style: `--method: ${method.colour}` },
    make("div", { class: "head" }, make("b", {}, method.label), dice),
    make("div", { class: "panels" }, ...panels.map((one) => one.node)),
    make("div", { class: "scale" }, threshold.node, ends));
  return { node, panels, dice, threshold };
}

function controls(data) {
  const slice = slider(["slice"], data.slices.length - 1, data.start[0], "slice");
  const noise = ["noise level t", make("sub", {}, "test")];
  const timestep = slider(noise, data.timesteps.length - 1, data.start[1], "timestep");
  const group = fresh();
  const map = choice("radio", "anomaly map (eroded, 3-D median)", "map", true, group);
  const residual = choice("radio", "residual |x − x̂|", "residual", false, group);
  const lesion = choice("checkbox", "outline the lesion", "outline", true);
  const found = choice("checkbox", "colour what is above the threshold", "overlay", true);
  const shown = make("fieldset", { class: "choices", "aria-label": "what is coloured and thresholded" },
    map.node, residual.node, lesion.node, found.node);
  const node = make("div", {}, make("p", { class: "title" }, data.title),
    make("div", { class: "top" }, slice.node, timestep.node), shown);
  return { node, slice, timestep, residual, lesion, found };
}

// What is shown of one method at the chosen slice and noise level.
function drawMethod(method, board, view, data) {
  const { start, count, scan, lesion, place } = view;
  const rebuilt = method.reconstructions.subarray(start, start + count);
  const difference = (i) => Math.abs(scan[i] - rebuilt[i]) / LEVELS / data.limit;
  const levels = view.residual
    ? Uint8Array.from(scan, (_, i) => Math.floor(Math.min(1, difference(i)) * LEVELS + 0.5))
    : method.maps.subarray(start, start + count);
  const level = Number(board.threshold.input.value);
  const { found, dice, best, bestLevel, size } = overlap(levels, lesion, level);
  const value = (of) => ((of * data.limit) / LEVELS).toFixed(3);
  const [reconstruction, residual, marked] = board.panels;
  const name = view.residual ? "residual" : "anomaly map";
  const { grey, heat, found: marks } = data.colours;
  reconstruction.draw((i) => grey[rebuilt[i]], `Reconstruction by ${method.label}, ${place}`);
  residual.draw((i) => heat[levels[i]], `${name} of ${method.label}, ${place}`);
  residual.say(name);
  marked.draw((i) => (view.overlay && levels[i] > level ? marks : grey)[scan[i]],
    `Scan; ${found} voxels are above the threshold of ${method.label}, ${place}`);
  for (const one of board.panels) one.outline(view.path, data.lesion_colour);
  board.threshold.say(`> ${value(level)}`);
  board.dice.textContent = size
    ? `Dice ${dice.toFixed(3)} in this slice (best possible: ${best.toFixed(3)} at ${value(bestLevel)})`
    : `no lesion in this slice, ${found} voxels above the threshold`;
}

function assemble(el, data) {
  const [height, width] = data.size;
  const count = height * width;
  const set = controls(data);
  const original = panel("image", "scan x", { height, width });
  const truth = panel("lesion", "lesion mask", { height, width });
  const boards = data.methods.map((method) => methodBoard(method, data, { height, width }));
  const draw = () => {
    const slice = Number(set.slice.input.value);
    const time = Number(set.timestep.input.value);
    const place = `slice ${data.slices[slice]}, t_test ${data.timesteps[time]}`;
    const scan = data.image.subarray(slice * count, (slice + 1) * count);
    const lesion = data.lesion.subarray(slice * count, (slice + 1) * count);
    const path = set.lesion.input.checked ? border(lesion, width) : "";
    set.slice.say(`${data.slices[slice]} (z = ${data.heights_mm[slice]} mm)`);
    set.timestep.say(`${data.timesteps[time]} (ᾱ = ${data.alpha_bars[time].toFixed(3)})`);
    original.draw((i) => data.colours.grey[scan[i]], `Scan, ${place}`);
    original.outline(path, data.lesion_colour);
    truth.draw((i) => data.colours.grey[lesion[i] * LEVELS], `Lesion mask, ${place}`);
    const view = { start: (time * data.slices.length + slice) * count, count, scan, lesion, path, place,
      residual: set.residual.input.checked, overlay: set.found.input.checked };
    data.methods.forEach((method, i) => drawMethod(method, boards[i], view, data));
  };
  const sides = make("section", { class: "scan", "aria-label": "scan and lesion mask" },
    make("div", { class: "panels" }, original.node, truth.node));
  el.classList.add("pddm-comparison");
  el.replaceChildren(make("style", {}, STYLE), set.node,
    make("div", { class: "board" }, sides, ...boards.map((board) => board.node)));
  el.oninput = draw;
  draw();
  el.dataset.ready = "true";
}

async function render({ model, el }) {
  const rebuild = async () => assemble(el, await load(model.get("frames")));
  model.on("change:frames", rebuild);
  await rebuild();
  return () => model.off("change:frames", rebuild);
}

export default { render };
