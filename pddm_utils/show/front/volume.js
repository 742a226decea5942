// The volume viewer of volume.py: three planes through one voxel of a scan, with the anomaly map over it.
// Volumes are arrays (z, y, x) as in a scan: inferior to superior, posterior to anterior, left to right.

const AXES = ["z", "y", "x"];
const VIEWS = { // rows and columns of a picture, both shown from their end: superior or anterior up, right on the left
  axial: { rows: 1, columns: 2, sides: ["R", "L"] },
  coronal: { rows: 0, columns: 2, sides: ["R", "L"] },
  sagittal: { rows: 0, columns: 1, sides: ["A", "P"] },
};

async function load(frames) {
  const [image, map, lesion, palette] = await Promise.all(
    [frames.image, frames.map, frames.lesion, frames.palette].map(unpack));
  return { ...frames, image, map, lesion, heat: heats(palette), palette };
}

// Index of each pixel of a view through a place, in the volume.
function plane({ rows, columns }, [depth, height, width], place) {
  const size = [depth, height, width];
  const stride = [height * width, width, 1];
  const fixed = 3 - rows - columns;
  const result = new Uint32Array(size[rows] * size[columns]);
  for (let r = 0, at = 0; r < size[rows]; r++)
    for (let c = 0; c < size[columns]; c++, at++)
      result[at] = place[fixed] * stride[fixed] + (size[rows] - 1 - r) * stride[rows]
        + (size[columns] - 1 - c) * stride[columns];
  return result;
}

function controls(data) {
  const names = ["z, inferior → superior", "y, posterior → anterior", "x, left → right"];
  const places = AXES.map((axis, i) => slider([names[i]], data.size[i] - 1, data.start[i], axis));
  const opacity = slider(["opacity of the map"], 100, 70, "opacity");
  const threshold = slider(["show the map above"], LEVELS, data.threshold, "threshold");
  threshold.input.before(colourBar(data.heat));
  const outline = choice("checkbox", "outline the lesion", "outline", true);
  const scale = make("div", {}, threshold.node, ends(data.limit, `anomaly map (${data.unit})`));
  const node = make("div", { class: "top" }, ...places.map((one) => one.node), opacity.node, scale);
  return { node, places, opacity, threshold, outline };
}

function assemble(data) {
  const { size } = data;
  const set = controls(data);
  const panels = Object.fromEntries(Object.entries(VIEWS).map(([name, view]) =>
    [name, panel(name, "", { height: size[view.rows], width: size[view.columns] }, view.sides)]));
  const said = status("volume");
  const mixed = (grey, level, part) => opaque(...data.palette.subarray(3 * level, 3 * level + 3)
    .reduce((colour, channel) => [...colour, Math.round((1 - part) * grey + part * channel)], []));
  const mm = (place) => data.affine.map((row) => row[0] * place[2] + row[1] * place[1] + row[2] * place[0] + row[3]);
  const update = () => {
    const place = set.places.map((one) => one.value);
    const [part, level] = [set.opacity.value / 100, set.threshold.value];
    const at = (place[0] * size[1] + place[1]) * size[2] + place[2];
    const where = mm(place).map((value) => value.toFixed(0).replace("-", "−"));
    for (const [name, view] of Object.entries(VIEWS)) {
      const index = plane(view, size, place);
      const one = panels[name];
      const fixed = 3 - view.rows - view.columns;
      one.draw((i) => {
        const [grey, value] = [data.image[index[i]], data.map[index[i]]];
        return value > level ? mixed(grey, value, part) : greys[grey];
      }, `${name} plane, ${AXES[fixed]} = ${place[fixed]}`);
      const inside = set.outline.value ? Uint8Array.from(index, (i) => data.lesion[i]) : [];
      one.outline(border(inside, size[view.columns]), data.lesion_colour);
      const x = size[view.columns] - 0.5 - place[view.columns];
      const y = size[view.rows] - 0.5 - place[view.rows];
      one.line(`M${x} 0V${size[view.rows]}M0 ${y}H${size[view.columns]}`, data.cross_colour, 1);
      one.say(`${name}, ${AXES[fixed]} = ${place[fixed]} (${where[2 - fixed]} mm)`);
    }
    set.places.forEach((one, i) => one.say(`${place[i]} (${where[2 - i]} mm)`));
    set.opacity.say(`${set.opacity.value} %`);
    set.threshold.say(`> ${((level * data.limit) / LEVELS).toFixed(3)}`);
    said.textContent = `At x = ${where[0]}, y = ${where[1]}, z = ${where[2]} mm: `
      + `scan ${(data.image[at] / LEVELS).toFixed(3)}, anomaly map ${((data.map[at] * data.limit) / LEVELS).toFixed(3)}`
      + `${data.lesion[at] ? ", in the lesion mask" : ""}.`;
  };
  for (const [name, view] of Object.entries(VIEWS))
    pick(panels[name], (x, y) => {
      set.places[view.columns].input.value = size[view.columns] - 1 - x;
      set.places[view.rows].input.value = size[view.rows] - 1 - y;
      update();
    });
  const pictures = make("div", { class: "panels wide" }, ...Object.values(panels).map((one) => one.node));
  const choices = make("div", { class: "choices" }, ...(data.lesion.includes(1) ? [set.outline.node] : []));
  return { nodes: [set.node, choices, pictures, said], update };
}

export default figure("volume", load, assemble);
