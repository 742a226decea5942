// Maps of the playground, as the package makes them, and what they are worth. A slab is `depth` planes in one array;
// its middle plane is shown, the others are what the 3-D median looks at.

const reachIn = (depth) => (depth > 1 ? 2 : 1); // of a median over 5 x 5 x 5 voxels, of one slice over 3 x 3
const mirrored = (i) => (i < 0 ? -1 - i : i >= SIDE ? 2 * SIDE - 1 - i : i); // beyond the frame, edge pixel included

// |x - x^| inside the eroded brain, all planes.
const residuals = (image, rebuilt, eroded) =>
  Float32Array.from(image, (value, i) => (eroded[i] ? Math.abs(value - rebuilt[i]) : 0));

// Brighter than usual at its place (darker on T1), in healthy standard deviations; 0 outside the eroded brain.
function zScores(image, { mean, deviation }, { darker, offset }, eroded) {
  const sign = darker ? -1 : 1;
  const score = (value, i) => (sign * (value - mean[i])) / (deviation[i] + offset);
  return Float32Array.from(image, (value, i) => (eroded[i] ? Math.max(0, score(value, i)) : 0));
}

// The median over a cube around every voxel of the middle plane that lies in the eroded brain.
function medianMap(values, eroded) {
  const depth = values.length / PIXELS;
  const middle = Math.floor(depth / 2);
  const result = new Float32Array(PIXELS);
  const reach = reachIn(depth);
  const width = 2 * reach + 1;
  const cube = new Float32Array(depth * width * width);
  const rows = Array.from({ length: SIDE + 2 * reach }, (_, i) => mirrored(i - reach));
  for (let y = 0; y < SIDE; y++)
    for (let x = 0; x < SIDE; x++) {
      if (!eroded[middle * PIXELS + y * SIDE + x]) continue;
      let n = 0;
      for (let z = 0; z < depth; z++)
        for (let v = 0; v < width; v++)
          for (let u = 0; u < width; u++) cube[n++] = values[z * PIXELS + rows[y + v] * SIDE + rows[x + u]];
      result[y * SIDE + x] = cube.sort()[cube.length >> 1];
    }
  return result;
}

// Average precision over all pixels, ties taken together, as in the package; NaN where there is no lesion.
function averagePrecision(map, truth) {
  const order = Uint16Array.from(map.keys()).sort((a, b) => map[b] - map[a]);
  const size = truth.reduce((sum, value) => sum + value, 0);
  let [hits, before, area] = [0, 0, 0];
  order.forEach((place, n) => {
    hits += truth[place];
    if (n + 1 < order.length && map[order[n + 1]] === map[place]) return;
    area += ((hits - before) / size) * (hits / (n + 1));
    before = hits;
  });
  return size ? area : NaN;
}

// Dice of what lies above a threshold; NaN where there is no lesion.
function diceAbove(map, truth, threshold) {
  let [hits, found, size] = [0, 0, 0];
  map.forEach((value, i) => {
    const above = value > threshold;
    hits += above && truth[i];
    found += above;
    size += truth[i];
  });
  return { dice: size ? (2 * hits) / (found + size) : NaN, found, size };
}
