// What the reader sees: the slice that can be painted on, one card for each method, and the box.

const MIXED = 0.65; // of the colour, over the grey of the slice
const grey = (value) => greys[Math.round(LEVELS * Math.min(1, Math.max(0, value)))];
const turned = (mask) => Uint8Array.from(mask, (_, i) => mask[shownAt(i)]);
const fixed = (value, digits = 2) => (Number.isNaN(value) ? "–" : value.toFixed(digits));

// A picture that pointer and keys act on: `act(row, column, phase)` gets places in the plane, fractions of a pixel too.
function actable(board, { label, act, keys }) {
  const { canvas, picture } = board;
  assign(canvas, { role: "application", tabindex: 0, "aria-roledescription": label });
  picture.classList.add("acted");
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [SIDE - 0.5 - ((event.clientY - box.top) / box.height) * SIDE,
      SIDE - 0.5 - ((event.clientX - box.left) / box.width) * SIDE];
  };
  let last = null;
  picture.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault(); // no text is selected, and the page stays where it is
    canvas.focus({ preventScroll: true });
    picture.setPointerCapture(event.pointerId);
    act(...(last = place(event)), "begin");
  });
  picture.addEventListener("pointermove", (event) => {
    if (!last) return;
    for (const one of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event])
      act(...(last = place(one)), "move");
  });
  for (const end of ["pointerup", "pointercancel"])
    picture.addEventListener(end, () => {
      if (last) act(...last, "end");
      last = null;
    });
  canvas.addEventListener("keydown", (event) => {
    // In the picture, right is a smaller column and up a larger row.
    const step = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, 1], ArrowRight: [0, -1] }[event.key];
    if (step || event.key === " " || event.key === "Enter") {
      event.preventDefault();
      keys(step?.map((part) => part * (event.shiftKey ? 8 : 2)));
    }
  });
}

const inPicture = (box) => `M${SIDE - box.left - box.size} ${SIDE - box.top - box.size}h${box.size}v${box.size}h${-box.size}z`;

// Two strokes, so that a line shows on dark and on bright.
function marked(board, path, colour, size = 2) {
  board.line(path, "#000000", size + 2);
  board.line(path, colour, size);
}

// --- one method ---

const VIEWS = { rebuilt: "reconstruction", residual: "residual", map: "anomaly map", found: "above the threshold" };

function limitOf(method) {
  return method.kind === "floor" ? Math.ceil(2.5 * method.threshold) : Math.ceil(50 * method.threshold) / 20;
}

function card(method, palette) {
  const limit = limitOf(method);
  const board = panel(`card-${method.name}`, "", { height: SIDE, width: SIDE });
  const scores = make("span", { "data-scores": method.name });
  const start = Math.round((LEVELS * method.threshold) / limit);
  const threshold = slider(["threshold"], LEVELS, start, `threshold-${method.name}`);
  threshold.input.setAttribute("aria-label", `threshold, ${method.label}`);
  const heat = heats(palette);
  threshold.input.before(colourBar(heat));
  const unit = method.kind === "floor" ? "healthy standard deviations" : "|x − x̂| (scaled intensity)";
  const node = make("div", { class: "method", role: "group", "aria-label": method.label, style: `--method: ${method.colour}` },
    make("div", { class: "head" }, make("b", {}, method.label), scores), board.node,
    make("div", { class: "scale" }, threshold.node, ends(limit, unit)));
  return { method, node, board, scores, threshold, limit, heat, palette };
}

// The colours of a card in the view that is chosen.
function painter(one, { result, plane, slab, shown, threshold }) {
  const middle = Math.floor(slab.depth / 2) * PIXELS;
  const rebuilt = (i) => (one.method.kind === "floor" && !slab.brain[middle + i] ? 0 : result.rebuilt[middle + i]);
  const level = (value) => Math.round(LEVELS * Math.min(1, value / one.limit));
  const mixed = (value) => opaque(...[86, 180, 233].map((channel) =>
    Math.round((1 - MIXED) * LEVELS * value + MIXED * channel)));
  const difference = (i) => (slab.brain[middle + i] ? Math.abs(plane[i] - rebuilt(i)) : 0);
  const scale = one.method.kind === "floor" ? 1 : one.limit; // the floor's threshold is in other units
  const looks = {
    rebuilt: (i, x) => grey(x < shown.wipe ? plane[i] : rebuilt(i)),
    residual: (i) => one.heat[Math.round(LEVELS * Math.min(1, difference(i) / scale))],
    map: (i) => one.heat[level(result.map?.[i] ?? 0)],
    found: (i) => (result.map?.[i] > threshold ? mixed(plane[i]) : grey(plane[i])),
  };
  const look = looks[shown.view];
  return (i) => look(shownAt(i), i % SIDE);
}

const rebuiltWords = (method) => ({ floor: "mean of healthy scans by place" }[method.kind] ?? "reconstruction x̂");

function drawCard(one, { result, slab, work, shown, outline, busy }) {
  const from = Math.floor(slab.depth / 2) * PIXELS;
  const [plane, truth] = [work.image, work.truth].map((all) => all.subarray(from, from + PIXELS));
  const threshold = (one.threshold.value * one.limit) / LEVELS;
  const swiped = shown.view === "rebuilt";
  const words = swiped ? rebuiltWords(one.method) : VIEWS[shown.view];
  one.board.draw(painter(one, { result, plane, slab, shown, threshold }),
    `${words} of ${one.method.label}${swiped && shown.wipe ? ", the scan at the left" : ""}`);
  one.board.outline(shown.outline ? outline : "", "#D55E00");
  if (swiped && shown.wipe) one.board.line(`M${shown.wipe} 0v${SIDE}`, "#56B4E9", 2);
  one.threshold.say(`> ${fixed(threshold)}`);
  one.node.setAttribute("aria-busy", busy);
  if (!result.map) return one.board.say(`${words}, working …`);
  const { dice, found, size } = diceAbove(result.map, truth, threshold);
  const precision = averagePrecision(result.map, truth);
  one.scores.textContent = size ? `AUPRC ${fixed(precision)}, Dice ${fixed(dice)}` : `no lesion, ${found} pixels found`;
  one.board.say(`${words}${busy ? ", working …" : swiped ? "; drag across to swipe" : ""}`);
}

// --- one box ---

function boxBoard() {
  const size = { height: SIDE, width: SIDE };
  const [before, after] = [panel("box-before", "what goes in: drag the box", size),
    panel("box-after", "what comes back", size)];
  return { before, after, node: make("div", { class: "pair" }, before.node, after.node) };
}

function drawBoxes({ before, after }, { noisy, back, boxes, outline }) {
  before.draw((i) => grey((noisy[shownAt(i)] + 1) / 2), "The slice with noise in the box");
  after.draw((i) => grey(back[shownAt(i)]), "The slice with the boxes that the network has filled");
  for (const board of [before, after]) {
    board.outline(outline, "#D55E00");
    boxes.forEach((box, n) => marked(board, inPicture(box), n === boxes.length - 1 ? "#E69F00" : "#9aa4ad"));
  }
}
