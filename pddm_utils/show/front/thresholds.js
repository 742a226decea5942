// The threshold explorer of thresholds.py: counts of map levels (0 to `limit`) in a whole scan, and a few slices.

async function load(frames) {
  const [image, lesion, map] = await Promise.all([frames.image, frames.lesion, frames.map].map(unpack));
  return { ...frames, image, lesion, map };
}

// Hits and predicted voxels above each level, from counts at each level; -1 stands for all voxels.
function above(counts) {
  const result = new Array(LEVELS + 1).fill(0);
  for (let level = LEVELS - 1; level >= 0; level--) result[level] = result[level + 1] + counts[level + 1];
  return result;
}

function curve(data) {
  const [healthy, lesion] = [above(data.healthy), above(data.lesion_counts)];
  const size = data.lesion_counts.reduce((a, b) => a + b, 0);
  return steps.map((level) => {
    const [hits, found] = [lesion[level], lesion[level] + healthy[level]];
    return { hits, found, recall: size ? hits / size : NaN, precision: found ? hits / found : NaN,
      dice: size ? (2 * hits) / (found + size) : NaN };
  });
}

// Bars of four levels, as the share of their group, on a logarithmic axis from 1e-5 to 1.
function histogram(plot, counts, colour) {
  const total = counts.reduce((a, b) => a + b, 0);
  const points = [];
  for (let level = 0; level <= LEVELS && total; level += 4) {
    const share = counts.slice(level, level + 4).reduce((a, b) => a + b, 0) / total;
    const height = share ? Math.max(0, 1 + Math.log10(share) / 5) : 0;
    points.push([level / (LEVELS + 1), height], [(level + 4) / (LEVELS + 1), height]);
  }
  plot.series(points, colour);
}

function drawSlice(data, index, level, picture, outline) {
  const count = data.size[0] * data.size[1];
  const cut = (values) => values.subarray(index * count, (index + 1) * count);
  const [image, lesion, map] = [data.image, data.lesion, data.map].map(cut);
  const { hit, false_alarm: alarm, miss } = data.tints;
  const kind = (i) => (map[i] > level ? (lesion[i] ? hit : alarm) : lesion[i] ? miss : greys);
  const hits = map.reduce((sum, value, i) => sum + (value > level && lesion[i]), 0);
  const found = map.reduce((sum, value) => sum + (value > level), 0);
  const size = lesion.reduce((a, b) => a + b, 0);
  picture.draw((i) => kind(i)[image[i]], `Slice ${data.slices[index]}: ${hits} lesion voxels found, ${found - hits} `
    + `voxels found outside the lesion, ${size - hits} missed`);
  picture.outline(outline ? border(lesion, data.size[1]) : "", "#222222");
  return size ? `Dice of this slice ${((2 * hits) / (found + size)).toFixed(3)}.`
    : `No lesion in this slice, ${found} voxels found.`;
}

function assemble(data) {
  const points = curve(data);
  data.tints = Object.fromEntries(Object.entries(data.colours).map(([name, colour]) => [name, tinted(colour)]));
  const best = points.reduce((top, point, level) => (point.dice > points[top].dice ? level : top), LEVELS);
  const threshold = slider(["threshold τ"], LEVELS, data.start[1], "threshold");
  const slice = slider(["slice"], data.slices.length - 1, data.start[0], "slice");
  const outline = choice("checkbox", "outline the lesion", "outline", false);
  const value = (level) => ((level * data.limit) / LEVELS).toFixed(3);
  const ticks = [0, 0.5, 1].map((x) => [x, String(x)]);
  const counts = chart("histogram", { xlabel: "anomaly map (scaled intensity)", ylabel: "share of voxels",
    xticks: [0, 0.5, 1].map((x) => [x, (x * data.limit).toFixed(2)]),
    yticks: [[0.2, "10⁻⁴"], [0.6, "10⁻²"], [1, "1"]] });
  const plane = chart("precision-recall", { xlabel: "recall", ylabel: "precision", xticks: ticks, yticks: ticks });
  histogram(counts, data.healthy, data.colours.healthy);
  histogram(counts, data.lesion_counts, data.colours.miss);
  plane.series(points.filter((point) => point.found).map((point) => [point.recall, point.precision]), "var(--accent)");
  const picture = panel("mask", "", { height: data.size[0], width: data.size[1] });
  const said = status("thresholds");
  const update = () => {
    const level = threshold.value;
    const { hits, found, recall, precision, dice } = points[level];
    const inSlice = drawSlice(data, slice.value, level, picture, outline.value);
    threshold.say(`> ${value(level)}`);
    slice.say(`${data.slices[slice.value]} (z = ${data.heights_mm[slice.value]} mm)`);
    counts.move((level + 1) / (LEVELS + 1), undefined, `Shares of healthy and of lesion voxels at each map value; `
      + `threshold at ${value(level)}`);
    plane.move(recall, found ? precision : 0, `Precision ${precision.toFixed(3)} at recall ${recall.toFixed(3)}`);
    said.replaceChildren(
      make("span", { "data-value": "volume" }, `Whole scan: precision ${found ? precision.toFixed(3) : "undefined"}, `
        + `recall ${recall.toFixed(3)}, Dice ${dice.toFixed(3)} (best possible: ${points[best].dice.toFixed(3)} at `
        + `${value(best)}), ${((found - hits) * data.voxel_ml).toFixed(1)} ml outside the lesion; `
        + `AUPRC ${data.auprc.toFixed(3)}. `),
      make("span", { "data-value": "slice" }, inSlice));
  };
  const legend = keys([[data.colours.hit, "lesion, found"], [data.colours.false_alarm, "found, not lesion"],
    [data.colours.miss, "lesion, missed"]]);
  const lines = keys([[data.colours.healthy, "rest of the brain"], [data.colours.miss, "lesion"]]);
  const top = make("div", { class: "top" }, threshold.node, slice.node);
  const charts = make("div", {}, make("div", {}, counts.node, lines), plane.node);
  const left = make("div", {}, picture.node, legend, make("div", { class: "choices" }, outline.node), said);
  return { nodes: [top, make("div", { class: "beside" }, left, charts)], update };
}

export default figure("thresholds", load, assemble);
