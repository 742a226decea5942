// What all interactive figures share: unpacking, controls, pictures, charts, and the way into a page or a notebook.
// A figure's own script follows this one in the same module (see widget.py) and ends with
// `export default figure(name, load, assemble)`. Planes come in display orientation as levels 0-255.

const LEVELS = 255;
const SVG = "http://www.w3.org/2000/svg";

async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const values = new Uint8Array(await new Response(stream).arrayBuffer());
  for (let i = 1; i < values.length; i++) values[i] += values[i - 1]; // a Uint8Array counts modulo 256
  return values;
}

function assign(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function make(tag, attributes = {}, ...children) {
  const node = assign(document.createElement(tag), attributes);
  node.append(...children);
  return node;
}

function shape(tag, attributes = {}, ...children) {
  const node = assign(document.createElementNS(SVG, tag), attributes);
  node.append(...children);
  return node;
}

let made = 0;
const fresh = () => `pddm-${(made += 1)}-${Math.random().toString(36).slice(2)}`;

// --- controls ---

function slider(label, last, value, name, { first = 0, step = 1 } = {}) {
  const id = fresh();
  const input = make("input", { type: "range", id, min: first, max: last, step, value, "data-control": name });
  input.disabled = last === first;
  const shown = make("output", { for: id });
  const node = make("div", { class: "slider" }, make("label", { for: id }, ...label), shown, input);
  const say = (words) => {
    shown.textContent = words;
    input.setAttribute("aria-valuetext", words);
  };
  return { node, input, say, get value() { return Number(input.value); } };
}

function select(label, options, name) {
  const id = fresh();
  const input = make("select", { id, "data-control": name },
    ...options.map((text) => make("option", { value: text }, text)));
  const node = make("div", { class: "select" }, make("label", { for: id }, label), input);
  return { node, input, get value() { return input.value; } };
}

function choice(type, text, name, checked, group = "") {
  const input = make("input", { type, "data-control": name, ...(group && { name: group }) });
  input.checked = checked;
  return { node: make("label", {}, input, text), input, get value() { return input.checked; } };
}

// A sentence that a screen reader speaks when it changes.
const status = (name) => make("p", { class: "say", role: "status", "aria-live": "polite", "data-say": name });

// --- colours and pictures ---

const opaque = (red, green, blue) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0; // little-endian RGBA
const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const steps = [...Array(LEVELS + 1).keys()];
const greys = steps.map((value) => opaque(value, value, value));
const heats = (palette) => steps.map((value) => opaque(...palette.subarray(3 * value, 3 * value + 3)));
// Grey under a colour: `part` of the colour, the rest of the grey.
const tinted = (hex, part = 0.65) => steps.map((grey) =>
  opaque(...channels(hex).map((channel) => Math.round((1 - part) * grey + part * channel))));

function fill(context, width, height, colour) {
  const picture = context.createImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = colour(i);
  context.putImageData(picture, 0, 0);
}

// A slice: voxels on a canvas of one pixel each, lines of constant width above it.
function panel(name, caption, { height, width }, sides = ["R", "L"]) {
  const canvas = make("canvas", { width, height, role: "img", "data-panel": name });
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  const marks = sides.map((text, i) => make("span", { style: `${i ? "right" : "left"}: 0.3rem` }, text));
  const words = make("div", { class: "caption" }, caption);
  const picture = make("div", { class: "picture" }, canvas, svg, ...marks);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const paint = (colour, alt) => {
    fill(context, width, height, colour);
    canvas.setAttribute("aria-label", alt);
  };
  const line = (path, stroke, size) => svg.append(shape("path", { d: path, stroke, "stroke-width": size }));
  const outline = (path, colour) => {
    svg.replaceChildren();
    if (path) line(path, "#ffffff", 3.5), line(path, colour, 1.8);
  };
  return { node: make("div", {}, picture, words), canvas, picture, draw: paint, line, outline,
    say: (text) => (words.textContent = text) };
}

// Pointing at a picture, by mouse, pen or finger: `hit` gets the pixel. With a mouse, moving is enough if `hover`.
function pick(panel, hit, { hover = false, look = "picked" } = {}) {
  panel.picture.classList.add(look);
  const point = (event) => {
    const box = panel.canvas.getBoundingClientRect();
    const inside = (value, start, size, count) =>
      Math.min(count - 1, Math.max(0, Math.floor(((value - start) / size) * count)));
    hit(inside(event.clientX, box.left, box.width, panel.canvas.width),
      inside(event.clientY, box.top, box.height, panel.canvas.height));
  };
  panel.picture.addEventListener("pointerdown", (event) => {
    panel.picture.setPointerCapture(event.pointerId);
    point(event);
  });
  panel.picture.addEventListener("pointermove", (event) => {
    if (event.buttons || (hover && event.pointerType === "mouse")) point(event);
  });
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

function colourBar(heat) {
  const bar = make("canvas", { class: "bar", width: LEVELS + 1, height: 1, "aria-hidden": "true" });
  fill(bar.getContext("2d"), LEVELS + 1, 1, (i) => heat[i]);
  return bar;
}

// What stands below a slider whose track is a colour scale.
const ends = (limit, text) => make("div", { class: "ends", "aria-hidden": "true" },
  make("span", {}, "0"), make("span", {}, text), make("span", {}, limit.toFixed(2)));

function keys(entries) {
  const one = ([colour, text]) => make("span", { class: "key" }, make("i", { style: `--key: ${colour}` }), text);
  return make("div", { class: "caption" }, ...entries.map(one));
}

// --- charts ---

// Axes for x and y in [0, 1]; `put` maps to the picture, `move` places what shows the current state.
function chart(name, { xlabel, ylabel, xticks, yticks }) {
  const [left, top, width, height] = [52, 8, 256, 150];
  const put = (x, y) => [left + x * width, top + (1 - y) * height];
  const text = (x, y, words, anchor, turn = "") => shape("text",
    { x, y, "text-anchor": anchor, ...(turn && { transform: turn }) }, words);
  const lines = shape("g");
  const now = shape("g");
  const svg = shape("svg", { class: "chart", viewBox: "0 0 320 200", role: "img", "data-chart": name },
    shape("path", { class: "axis", d: `M${left} ${top}v${height}h${width}` }),
    ...xticks.map(([at, words]) => text(left + at * width, top + height + 14, words, "middle")),
    ...yticks.map(([at, words]) => text(left - 4, top + (1 - at) * height + 4, words, "end")),
    text(left + width / 2, top + height + 32, xlabel, "middle"),
    text(10, top + height / 2, ylabel, "middle", `rotate(-90 10 ${top + height / 2})`), lines, now);
  const series = (points, stroke) => lines.append(shape("path", { class: "series", stroke,
    d: points.map(([x, y], i) => `${i ? "L" : "M"}${put(x, y).map((v) => v.toFixed(2)).join(" ")}`).join("") }));
  const move = (x, y, alt) => {
    const [px, py] = put(x, y ?? 0);
    const point = shape("circle", { class: "point", cx: px, cy: py, r: 5, "data-x": x, "data-y": y ?? "" });
    now.replaceChildren(...(y === undefined
      ? [shape("path", { class: "now", d: `M${px} ${top}v${height}`, "stroke-width": 2, "data-x": x })] : [point]));
    svg.setAttribute("aria-label", alt);
  };
  const clear = () => lines.replaceChildren();
  return { node: svg, series, move, clear };
}

// --- into a page or a notebook ---

function figure(name, load, assemble) {
  return {
    async render({ model, el }) {
      let stop = null;
      const rebuild = async () => {
        const data = await load(model.get("frames"));
        stop?.();
        el.classList.add("pddm-figure", `pddm-${name}`);
        el.setAttribute("role", "group");
        el.setAttribute("aria-label", data.title);
        const { nodes, update, leave } = assemble(data, model);
        stop = leave;
        el.replaceChildren(make("style", {}, STYLE), make("p", { class: "title" }, data.title), ...nodes);
        el.oninput = update;
        update();
        el.dataset.ready = "true";
      };
      model.on("change:frames", rebuild);
      await rebuild();
      return () => {
        model.off("change:frames", rebuild);
        stop?.();
      };
    },
  };
}
