// Box grids and stitching of boxes.py. Rows and columns are those of arrays; the picture shows both turned round.

async function load(frames) {
  const [image, palette] = await Promise.all([frames.image, frames.palette].map(unpack));
  return { ...frames, image, heat: heats(palette) };
}

// First pixels along one axis; the last box is shifted inward to end at the border.
function starts(image, box, stride) {
  const last = image - box;
  const result = [];
  for (let start = 0; start < last; start += stride) result.push(start);
  return [...result, last];
}

function gridBoxes([height, width], box, stride) {
  const lefts = starts(width, box, stride);
  return starts(height, box, stride).flatMap((top) => lefts.map((left) => ({ top, left })));
}

// A made-up prediction for each box: the slice with an error of its own, in levels.
const errorOf = (number) => ((number * 37) % 61) - 30;

// How many boxes cover each pixel, and the mean of their predictions there; both in display orientation.
function stitch(data, boxes, box) {
  const [height, width] = data.size;
  const coverage = new Uint16Array(height * width);
  const errors = new Int32Array(height * width);
  boxes.forEach(({ top, left }, number) => {
    for (let row = top; row < top + box; row++)
      for (let column = left; column < left + box; column++) {
        const at = (height - 1 - row) * width + (width - 1 - column);
        coverage[at] += 1;
        errors[at] += errorOf(number);
      }
  });
  const mean = (i) => data.image[i] + errors[i] / coverage[i];
  const stitched = Uint8Array.from(data.image, (_, i) => Math.min(LEVELS, Math.max(0, Math.floor(mean(i) + 0.5))));
  return { coverage, stitched, most: coverage.reduce((a, b) => Math.max(a, b), 0), mean };
}

function controls({ size, box, stride, pixel }) {
  const side = Math.min(...size);
  const boxSize = slider(["box size"], side, box, "box", { first: 8, step: 4 });
  const step = slider(["stride"], side, stride, "stride", { first: 4, step: 4 });
  const row = slider(["pixel row (posterior → anterior)"], size[0] - 1, pixel[0], "row");
  const column = slider(["pixel column (left → right)"], size[1] - 1, pixel[1], "column");
  const node = make("div", { class: "top even" }, boxSize.node, step.node, row.node, column.node);
  return { node, boxSize, step, row, column };
}

// Which boxes the pixel's value comes from, each with its weight in the mean.
function sources(row, column, covering, value) {
  const one = ({ number, top, left }) =>
    `box ${number} at (${top}, ${left}): weight 1/${covering.length}, `
    + `error ${errorOf(number) < 0 ? "−" : "+"}${Math.abs(errorOf(number) / LEVELS).toFixed(3)}`;
  const listed = covering.slice(0, 6).map((box) => make("li", {}, one(box)));
  if (covering.length > 6) listed.push(make("li", {}, `and ${covering.length - 6} more with the same weight`));
  const count = `${covering.length} ${covering.length === 1 ? "box" : "boxes"}`;
  return [make("p", {}, `Pixel (${row}, ${column}) lies in ${count}; its stitched value is ${value}.`),
    make("ol", { class: "soft" }, ...listed)];
}

function assemble(data) {
  const [height, width] = data.size;
  const size = { height, width };
  const set = controls(data);
  const [grid, covered, stitched] = [["grid", ""], ["coverage", ""],
    ["stitched", "stitched, each box with a made-up error"]].map(([name, text]) => panel(name, text, size));
  const said = make("div", { class: "say", role: "status", "aria-live": "polite", "data-say": "boxes" });
  const outline = (boxes, box) => boxes.map(({ top, left }) =>
    `M${width - left - box} ${height - top - box}h${box}v${box}h${-box}z`).join("");
  const update = () => {
    const box = set.boxSize.value;
    set.step.input.max = box; // a larger stride would leave gaps
    const [stride, row, column] = [set.step.value, set.row.value, set.column.value];
    const boxes = gridBoxes(data.size, box, stride).map((one, number) => ({ ...one, number }));
    const covering = boxes.filter(({ top, left }) =>
      top <= row && row < top + box && left <= column && column < left + box);
    const result = stitch(data, boxes, box);
    const at = (height - 1 - row) * width + (width - 1 - column);
    set.boxSize.say(`${box} px`);
    set.step.say(`${stride} px`);
    set.row.say(String(row));
    set.column.say(String(column));
    grid.draw((i) => greys[data.image[i]], `Slice with ${boxes.length} boxes of ${box} pixels, stride ${stride}`);
    grid.say(`${boxes.length} boxes of ${box} px`);
    covered.draw((i) => data.heat[Math.floor((result.coverage[i] / result.most) * LEVELS + 0.5)],
      `Number of boxes over each pixel, at most ${result.most}`);
    covered.say(`boxes over a pixel: ${result.coverage.reduce((a, b) => Math.min(a, b), 1e9)} to ${result.most}`);
    stitched.draw((i) => greys[result.stitched[i]], "Slice stitched from made-up predictions of all boxes");
    const [x, y] = [width - 1 - column + 0.5, height - 1 - row + 0.5];
    for (const one of [grid, covered, stitched]) {
      one.outline("", "");
      if (one === grid) one.line(outline(boxes, box), data.colours.grid, 1);
      const [around, cross] = [outline(covering, box), `M${x - 4} ${y}h8M${x} ${y - 4}v8`];
      if (one !== stitched) one.line(around, "#000000", 4), one.line(around, data.colours.covering, 2.2);
      one.line(cross, "#000000", 4);
      one.line(cross, "#ffffff", 1.8);
    }
    said.replaceChildren(make("p", {}, `${boxes.length} boxes, so ${boxes.length} forward passes for the slice.`),
      ...sources(row, column, covering, (result.mean(at) / LEVELS).toFixed(3)));
  };
  for (const one of [grid, covered, stitched])
    pick(one, (x, y) => {
      set.row.input.value = height - 1 - y;
      set.column.input.value = width - 1 - x;
      update();
    }, { hover: true });
  const pictures = make("div", { class: "panels wide" }, grid.node, covered.node, stitched.node);
  return { nodes: [set.node, pictures, said], update };
}

export default figure("boxes", load, assemble);
