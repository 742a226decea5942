// The three steps of the playground. Each gets the state of the page and says through `changed` what it has changed.

const LESION = "#D55E00";

function button(text, name, act, look = "") {
  const node = make("button", { type: "button", "data-control": name, ...(look && { class: look }) }, text);
  node.onclick = act;
  return node;
}

// --- 1: paint ---

function brushTools() {
  const percent = (label, name, value) => slider([label], 100, value, name, { step: 5 });
  const tools = {
    radius: slider(["brush radius"], 16, 5, "radius", { first: 1 }),
    brightness: percent("brightness", "brightness", 90),
    softness: percent("softness of the edge", "softness", 40),
    texture: percent("texture", "texture", 30),
  };
  const say = () => {
    tools.radius.say(`${2 * tools.radius.value} mm`);
    for (const name of ["brightness", "softness", "texture"]) tools[name].say(`${tools[name].value} %`);
  };
  say();
  const node = make("div", { class: "tools" }, ...Object.values(tools).map((one) => one.node));
  node.oninput = say;
  const brush = (erase) => ({ erase, radius: tools.radius.value, brightness: tools.brightness.value / 100,
    softness: tools.softness.value / 100, texture: tools.texture.value / 100 });
  return { node, brush };
}

function paintStep(state, changed) {
  const board = panel("paint", "", { height: SIDE, width: SIDE });
  const tools = brushTools();
  const group = fresh();
  const paint = choice("radio", "paint a lesion", "paint", true, group);
  const erase = choice("radio", "erase", "erase", false, group);
  const said = status("paint");
  const cursor = { row: SIDE / 2, column: SIDE / 2 };
  const shown = () => state.work.image.subarray(state.middle, state.middle + PIXELS);
  const size = () => state.work.truth.subarray(state.middle, state.middle + PIXELS).reduce((a, b) => a + b, 0);
  const draw = (words = "") => {
    const { title, twin } = state.slab;
    for (const one of [erase.node, heal]) one.style.display = twin ? "" : "none"; // nobody knows the healthy twin of a patient
    if (!twin) paint.input.checked = true;
    board.draw((i) => grey(shown()[shownAt(i)]), `The slice: ${title}. Arrow keys move the brush, space puts it down`);
    board.outline(state.outline(), LESION);
    const [x, y, r] = [SIDE - 0.5 - cursor.column, SIDE - 0.5 - cursor.row, tools.brush().radius];
    const ring = `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
    marked(board, ring, erase.value ? "#56B4E9" : "#E69F00", 1.5);
    undo.disabled = !state.work.canUndo;
    board.say(`${title}; drag to ${erase.value ? "erase" : "paint"}`);
    if (words) said.textContent = words;
  };
  const finish = (words) => {
    changed("slice", false);
    draw(`${words} ${size()} pixels of this slice are lesion.`);
  };
  const act = (row, column, phase) => {
    Object.assign(cursor, { row, column });
    if (phase === "begin") state.work.begin();
    if (phase !== "end") state.work.stamp(row, column, tools.brush(erase.value));
    if (phase === "end") return finish(erase.value ? "Erased." : "Painted.");
    changed("slice", true);
    draw();
  };
  const keys = (step) => {
    const clip = (value) => Math.min(SIDE - 1, Math.max(0, value));
    if (step) {
      Object.assign(cursor, { row: clip(cursor.row + step[0]), column: clip(cursor.column + step[1]) });
      return draw(`Brush at row ${cursor.row}, column ${cursor.column}.`);
    }
    for (const phase of ["begin", "end"]) act(cursor.row, cursor.column, phase);
  };
  actable(board, { label: "picture to paint on", act, keys });
  const back = (name, words) => () => {
    state.work[name]();
    finish(words);
  };
  const undo = button("Undo", "undo", back("undo", "Undone."));
  const heal = button("Healthy twin", "heal", back("heal", "The healthy twin of this scan."));
  const buttons = make("div", { class: "buttons" }, undo, button("As it was", "reset", back("reset", "As it was.")), heal);
  const mode = make("fieldset", { class: "choices", "aria-label": "what the brush does" }, paint.node, erase.node);
  const side = make("div", { class: "tools" }, mode, tools.node, buttons, said);
  side.addEventListener("input", () => draw());
  const node = make("div", { role: "group", "aria-label": "paint" }, make("p", { class: "step" }, "1 Paint a lesion, or erase one"),
    make("div", { class: "pair" }, board.node, side));
  return { node, draw };
}

// --- 2: compare ---

function noiseTools(state, changed) {
  const level = slider(["noise level t"], state.levels - 1, state.set.timestep, "timestep");
  const own = choice("checkbox", "each model at its own level", "own", true);
  const box = slider(["box size"], SIDE, state.set.box, "box", { first: 16, step: 4 });
  const stride = slider(["stride"], SIDE, state.set.stride, "stride", { first: 8, step: 4 });
  const note = make("p", { class: "note", "data-say": "trained" });
  const read = (event) => {
    if (event?.target === level.input) own.input.checked = false;
    stride.input.max = box.value; // a larger stride would leave gaps
    stride.input.min = Math.max(8, 4 * Math.ceil((SIDE - box.value) / 32)); // at most 81 boxes
    Object.assign(state.set, { own: own.value, timestep: level.value, box: box.value, stride: stride.value });
    const patched = state.models.find((one) => one.kind === "diffusion" && one.box < SIDE);
    const plan = patched && planOf(patched, state.set);
    const ofAll = (words) => (own.value ? "own" : words);
    level.say(ofAll(`${level.value} (ᾱ = ${fixed(state.models[0].alphaBars?.[level.value] ?? NaN, 3)})`));
    box.say(`${box.value} px`);
    stride.say(plan ? `${plan.stride} px, ${plan.boxes.length} boxes` : `${stride.value} px`);
    note.textContent = untrained(state).join(" ");
    if (event) changed("noise", event.type === "input" && event.target.type === "range");
  };
  const again = button("New noise", "noise", () => {
    state.set.seed += 1;
    changed("noise", false);
  });
  const node = make("div", {}, make("div", { class: "top even" }, level.node, box.node,
    make("div", { class: "choices" }, own.node, again), stride.node), note);
  node.addEventListener("input", read);
  node.addEventListener("change", () => changed("noise", false));
  return { node, read };
}

// What the models have not been trained for, in sentences.
function untrained({ models, set }) {
  const words = [];
  for (const model of models.filter((one) => one.kind === "diffusion" && one.box < SIDE)) {
    if (set.box !== model.box)
      words.push(`${model.label}: trained on boxes of ${model.box} px, not of ${set.box} px.`);
    else if (set.stride !== model.stride && !model.anywhere)
      words.push(`${model.label}: trained on boxes at multiples of ${model.stride} px only.`);
  }
  if (!set.own) words.push("The thresholds belong to each model's own noise level.");
  return words;
}

function compareStep(state, changed) {
  const tools = noiseTools(state, changed);
  const group = fresh();
  const views = Object.entries(VIEWS).map(([name, text]) => [name, choice("radio", text, name, name === "rebuilt", group)]);
  const wipe = slider(["swipe the scan over the reconstruction"], SIDE, 0, "wipe");
  const cards = state.all.map(({ method }) => card(method, state.palette));
  const which = cards.map((one) => [one, choice("checkbox", one.method.label, `show-${one.method.name}`, true)]);
  const outline = choice("checkbox", "outline the lesion", "outline", true);
  const said = status("compare");
  const shown = { view: "rebuilt", wipe: 0, outline: true };
  const drawOne = (result) => {
    const one = cards.find(({ method }) => method === result.method);
    drawCard(one, { result, slab: state.slab, work: state.work, shown, outline: state.outline(), busy: state.busy });
  };
  const draw = () => {
    shown.view = views.find(([, one]) => one.value)[0];
    Object.assign(shown, { wipe: wipe.value, outline: outline.value });
    wipe.node.hidden = shown.view !== "rebuilt";
    wipe.say(`${Math.round((100 * wipe.value) / SIDE)} %`);
    for (const [one, box] of which) one.node.hidden = !box.value;
    state.all.forEach(drawOne);
  };
  for (const one of cards)
    pick(one.board, (x) => {
      if (shown.view !== "rebuilt") return;
      wipe.input.value = x + 1;
      draw();
    }, { look: "wiped" });
  const choices = (label, all) => make("fieldset", { class: "choices", "aria-label": label }, ...all.map((one) => one.node));
  const look = make("div", {}, choices("what is shown", [...views.map(([, one]) => one), outline]),
    choices("which methods", which.map(([, one]) => one)), wipe.node, make("div", { class: "cards" },
      ...cards.map((one) => one.node)), said);
  look.addEventListener("input", draw);
  const node = make("div", { role: "group", "aria-label": "compare" },
    make("p", { class: "step" }, "2 Compare what the models make of it"), tools.node, look);
  const speak = (words) => (said.textContent = words);
  return { node, draw, drawOne, speak, cards, read: tools.read };
}

// --- 3: one box, or all of the grid ---

function boxStep(state, predict, fail) {
  const noisy = state.models.filter((one) => one.kind === "diffusion");
  const model = select("model", noisy.map((one) => one.label), "box-model");
  const board = boxBoard();
  const lines = choice("checkbox", "draw the boxes", "lines", true);
  const said = status("box");
  const corner = { top: 24, left: 40 };
  let [turn, draws, last] = [0, 0, null];
  const chosen = () => noisy[model.input.selectedIndex];
  const plane = (values) => values.subarray(state.middle, state.middle + PIXELS);
  const draw = () => last && drawBoxes(board, { ...last, boxes: lines.value ? last.boxes : [], outline: state.outline() });
  const clean = () => toSigned(plane(state.work.image));
  const levelOf = (one) => (state.set.own ? one.timestep : state.set.timestep);
  // The box at hand: noise in, one pass, and back.
  const one = async () => {
    const mine = (turn += 1);
    const [used, size, input] = [chosen(), state.set.box, clean()];
    const clip = (value) => Math.min(SIDE - size, Math.max(0, Math.round(value)));
    const box = { top: clip(corner.top), left: clip(corner.left), size };
    const level = levelOf(used);
    const dirty = withNoise(input, noiseField(used, state.set.seed, 99, draws), used.alphaBars[level], box);
    last = { noisy: dirty, back: last?.back ?? plane(state.work.image), boxes: [box] };
    draw();
    const { y, milliseconds } = await predict(used.name, dirty, level);
    if (mine !== turn) return;
    const stitched = stitcher(input);
    stitched.add(y, box);
    last.back = toUnit(stitched.result());
    draw();
    const fit = size === used.box ? "" : ` It was trained with noise in ${used.box === SIDE ? "the whole slice"
      : `boxes of ${used.box} px`}.`;
    said.textContent = `${used.label}: box at row ${box.top}, column ${box.left}, t = ${level}; one pass of `
      + `${Math.round(milliseconds)} ms.${fit}`;
  };
  const grid = async () => {
    const mine = (turn += 1);
    const used = chosen();
    const plan = planOf(used, state.set);
    const inputs = { image: plane(state.work.image).slice(), brain: plane(state.slab.brain), seeds: [state.set.seed, 2] };
    const boxes = [];
    const made = await rebuildBoxes({ predict }, used, plan, inputs, ({ box, noisy: input, so }) => {
      if (mine !== turn) return false;
      boxes.push(box);
      last = { noisy: input, back: so(), boxes: [...boxes] };
      draw();
      said.textContent = `${used.label}: box ${boxes.length} of ${plan.boxes.length}`;
    });
    if (!made) return;
    const [jumps, before] = [made.plane, inputs.image].map((values) => seamJumps(values, inputs.brain, plan));
    const seams = Number.isNaN(jumps.seam) ? "One box, so no seams."
      : `Neighbours differ by ${fixed(jumps.seam, 3)} across the seams and ${fixed(jumps.other, 3)} elsewhere `
        + `(in the scan ${fixed(before.seam, 3)} and ${fixed(before.other, 3)}).`;
    said.textContent = `${used.label}: ${made.passes} boxes in ${Math.round(made.milliseconds)} ms. ${seams}`;
  };
  const safely = (act) => () => act().catch(fail);
  const centre = (row, column) => Object.assign(corner, { top: row - state.set.box / 2, left: column - state.set.box / 2 });
  actable(board.before, {
    label: "picture with a box to drag",
    act(row, column) {
      centre(row, column);
      safely(one)();
    },
    keys(step) {
      const clip = (value) => Math.min(SIDE - state.set.box, Math.max(0, value));
      if (step) Object.assign(corner, { top: clip(corner.top + step[0]), left: clip(corner.left + step[1]) });
      safely(one)();
    },
  });
  model.input.addEventListener("change", safely(one));
  lines.input.addEventListener("change", draw);
  const again = button("New noise", "box-noise", () => {
    draws += 1;
    safely(one)();
  });
  const tools = make("div", { class: "choices" }, model.node, again, button("Run the grid", "grid", safely(grid)), lines.node);
  const node = make("div", { role: "group", "aria-label": "one box" },
    make("p", { class: "step" }, "3 Drag a box: noise goes in, a guess comes back"), tools, board.node, said);
  return { node, update: safely(one), draw };
}
