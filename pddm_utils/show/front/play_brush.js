// What the reader paints into a slab, as a ball with a soft edge, and what is lesion then; with undo.

const KEPT = 20; // strokes that can be undone

// Opacity of a brush at a distance from its centre: 1 inside, falling smoothly to 0 over the soft part of its radius.
function opacity(distance, { radius, softness }) {
  const edge = (radius - distance) / (radius * Math.max(softness, 0.05));
  return edge <= 0 ? 0 : edge >= 1 ? 1 : 0.5 - 0.5 * Math.cos(Math.PI * edge);
}

// Grain of about three pixels with a standard deviation of 1.
function grain(count, seed) {
  const draw = uniform(seed, 77);
  const rough = Float32Array.from({ length: count }, () => draw() - 0.5);
  return rough.map((_, i) => {
    const near = [-SIDE - 1, -SIDE, -SIDE + 1, -1, 0, 1, SIDE - 1, SIDE, SIDE + 1].map((step) => rough[i + step] ?? 0);
    return (Math.sqrt(108) / 9) * near.reduce((a, b) => a + b); // nine uniform numbers have a variance of 9 / 12
  });
}

function slate(slab) {
  const { depth } = slab;
  const own = { image: Float32Array.from(slab.image), truth: Uint8Array.from(slab.lesion) };
  const texture = grain(depth * PIXELS, 5);
  const past = [];
  const versions = Array(depth).fill(0);
  let stroke = null;
  const copy = () => ({ image: own.image.slice(), truth: own.truth.slice() });
  const touchAll = () => versions.forEach((_, z) => (versions[z] += 1));
  const restore = (state) => {
    own.image.set(state.image);
    own.truth.set(state.truth);
    touchAll();
  };
  // A brush put down at a place in the middle plane: everything within the ball, inside the brain.
  const stamp = (row, column, brush) => {
    const { radius } = brush;
    const middle = Math.floor(depth / 2);
    for (let z = 0; z < depth; z++) {
      let touched = false;
      for (let y = Math.max(0, Math.ceil(row - radius)); y <= Math.min(SIDE - 1, row + radius); y++)
        for (let x = Math.max(0, Math.ceil(column - radius)); x <= Math.min(SIDE - 1, column + radius); x++) {
          const i = z * PIXELS + y * SIDE + x;
          const alpha = slab.brain[i] ? opacity(Math.hypot(z - middle, y - row, x - column), brush) : 0;
          if (alpha <= stroke.alpha[i]) continue;
          stroke.alpha[i] = alpha;
          touched = true;
          const painted = Math.min(1, Math.max(0, brush.brightness + 0.15 * brush.texture * texture[i]));
          const goal = brush.erase ? slab.healthy[i] : painted;
          own.image[i] = (1 - alpha) * stroke.before.image[i] + alpha * goal;
          if (alpha >= 0.5) own.truth[i] = brush.erase ? 0 : 1;
        }
      if (touched) versions[z] += 1;
    }
  };
  return {
    ...own, versions, stamp,
    begin() {
      stroke = { before: copy(), alpha: new Float32Array(depth * PIXELS) };
      past.push(stroke.before);
      if (past.length > KEPT) past.shift();
    },
    undo() {
      if (past.length) restore(past.pop());
    },
    reset() {
      past.push(copy());
      restore({ image: slab.image, truth: slab.lesion });
    },
    heal() {
      past.push(copy());
      restore({ image: slab.healthy, truth: new Uint8Array(depth * PIXELS) });
    },
    get canUndo() { return past.length > 0; },
  };
}
