// Methods over a slab: the middle plane first, then the neighbours that its map needs; what has not changed is kept.

// Where a method's noise goes: its boxes, its level and whether that is what it was trained for.
function planOf(model, set) {
  const whole = model.box === SIDE;
  const [size, stride] = whole ? [SIDE, SIDE] : [set.box, Math.min(set.stride, set.box)];
  const level = set.own ? model.timestep : set.timestep;
  return { size, stride, level, alphaBar: model.alphaBars?.[level], boxes: boxGrid(size, stride) };
}

// One plane in [0, 1] rebuilt box by box; `see` gets every prediction as it arrives.
async function rebuildBoxes(engine, model, plan, { image, brain, seeds }, see) {
  const clean = toSigned(image);
  const stitched = stitcher(clean);
  const began = performance.now();
  let passes = 0;
  for (const [number, box] of plan.boxes.entries()) {
    if (!holds(box, brain)) continue; // as in the package: there is nothing to rebuild
    const noisy = withNoise(clean, noiseField(model, ...seeds, number), plan.alphaBar, box);
    const { y } = await engine.predict(model.name, noisy, plan.level);
    passes += 1;
    stitched.add(y, box);
    if (see?.({ box, noisy, number, so: () => toUnit(stitched.result()) }) === false) return null;
  }
  return { plane: toUnit(stitched.result()), passes, milliseconds: performance.now() - began };
}

const DARK = -1 + 0.02; // the background of an autoencoder, which it never learned

async function rebuildAtOnce(engine, model, { image }) {
  const clean = toSigned(image);
  const began = performance.now();
  const { y } = await engine.predict(model.name, clean, 0);
  return { plane: toUnit(clean.map((value, i) => (value > DARK ? y[i] : value))), passes: 1,
    milliseconds: performance.now() - began };
}

// What each method has made of the slab at hand.
function results(method, depth) {
  return { method, rebuilt: new Float32Array(depth * PIXELS), keys: Array(depth).fill(""), map: null, mapKey: "",
    passes: 0, milliseconds: 0 };
}

// One plane of one method, unless it is there already; false where the answer is no longer wanted.
async function fillPlane(engine, state, z, wanted) {
  const { result, slab, work, set } = state;
  const { method } = result;
  const part = (values) => values.subarray(z * PIXELS, (z + 1) * PIXELS);
  const plan = method.kind === "diffusion" ? planOf(method, set) : null;
  const key = [work.versions[z], plan && [plan.size, plan.stride, plan.level, set.seed]].join();
  if (result.keys[z] === key) return true;
  if (method.kind === "floor") {
    part(result.rebuilt).set(part(slab.mean));
  } else {
    const inputs = { image: part(work.image).slice(), brain: part(slab.brain), seeds: [set.seed, z] };
    const made = plan ? await rebuildBoxes(engine, method, plan, inputs, wanted)
      : await rebuildAtOnce(engine, method, inputs);
    if (!made || !wanted()) return false;
    part(result.rebuilt).set(made.plane);
    if (z === Math.floor(slab.depth / 2)) Object.assign(result, { passes: made.passes, milliseconds: made.milliseconds });
  }
  result.keys[z] = key;
  return true;
}

// What is thresholded: the map of the middle plane, in the units of the method's threshold.
function makeMap(result, slab, work) {
  const key = result.keys.join(";");
  if (result.mapKey === key) return;
  const values = result.method.kind === "floor" ? zScores(work.image, slab, result.method, slab.eroded)
    : residuals(work.image, result.rebuilt, slab.eroded);
  Object.assign(result, { map: medianMap(values, slab.eroded), mapKey: key });
}

// All methods over all planes. `show` gets a method whenever there is more of it; after the middle planes `go` may end
// the run, and `done` follows the maps.
async function runAll(engine, { all, slab, work, set }, wanted, { show, go, done }) {
  const middle = Math.floor(slab.depth / 2);
  const fill = async (z) => {
    for (const result of all) {
      if (!(await fillPlane(engine, { result, slab, work, set }, z, wanted))) return false;
      if (z === middle) show(result);
    }
    return true;
  };
  if (!(await fill(middle)) || !go()) return;
  for (let z = 0; z < slab.depth; z++) if (!(await fill(z))) return;
  for (const result of all) {
    makeMap(result, slab, work);
    show(result);
  }
  done();
}

// How far neighbours differ across the seams of a grid and elsewhere, in the brain: mean |difference|, both ways.
function seamJumps(plane, brain, { size, stride }) {
  const starts = new Set(firstPixels(size, stride).filter((first) => first > 0));
  const sums = { seam: [0, 0], other: [0, 0] };
  const add = (kind, i, j) => {
    if (!brain[i] || !brain[j]) return;
    sums[kind][0] += Math.abs(plane[i] - plane[j]);
    sums[kind][1] += 1;
  };
  for (let row = 0; row < SIDE; row++)
    for (let column = 0; column < SIDE; column++) {
      const i = row * SIDE + column;
      if (row) add(starts.has(row) ? "seam" : "other", i, i - SIDE);
      if (column) add(starts.has(column) ? "seam" : "other", i, i - 1);
    }
  return Object.fromEntries(Object.entries(sums).map(([kind, [sum, count]]) => [kind, count ? sum / count : NaN]));
}
