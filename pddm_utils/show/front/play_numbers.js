// Numbers of the playground: noise, boxes and one reconstruction. SIDE comes from Python. A plane has SIDE rows of
// SIDE pixels in the order of arrays, so the networks take it as it is; pictures show it turned round.

const PIXELS = SIDE * SIDE;
const shownAt = (i) => PIXELS - 1 - i; // from a place in the picture to the place in the plane, and back

// Uniform numbers in (0, 1): xorshift of 32 bits (Marsaglia 2003), seeded by a few whole numbers.
function uniform(...seeds) {
  let state = seeds.reduce((mixed, seed) => (Math.imul(mixed ^ (mixed >>> 15) ^ seed, 0x2c1b3c6d) + 0x9e3779b9) | 0, 1);
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return ((state >>> 0) + 0.5) / 4294967296;
  };
  state ||= 1;
  for (let i = 0; i < 16; i++) next();
  return next;
}

function gaussianField(draw) {
  const field = new Float32Array(PIXELS);
  for (let i = 0; i < PIXELS; i += 2) {
    const [radius, angle] = [Math.sqrt(-2 * Math.log(draw())), 2 * Math.PI * draw()];
    field[i] = radius * Math.cos(angle);
    field[i + 1] = radius * Math.sin(angle);
  }
  return field;
}

// A field that came with the model, mirrored or turned: for kinds of noise that are not drawn here.
function storedField({ fields, step }, draw) {
  const first = Math.floor(draw() * (fields.length / PIXELS)) * PIXELS;
  const [mirror, flip, turn] = [draw() < 0.5, draw() < 0.5, draw() < 0.5];
  return Float32Array.from({ length: PIXELS }, (_, i) => {
    const [y, x] = [Math.floor(i / SIDE), i % SIDE];
    const [row, column] = [flip ? SIDE - 1 - y : y, mirror ? SIDE - 1 - x : x];
    return fields[first + (turn ? column * SIDE + row : row * SIDE + column)] / step;
  });
}

const noiseField = (model, ...seeds) => (model.fields ? storedField : (_, draw) => gaussianField(draw))(
  model, uniform(...seeds));

// First pixels along one axis; the last box is shifted inward to end at the border.
function firstPixels(size, stride) {
  const last = SIDE - size;
  const result = [];
  for (let start = 0; start < last; start += stride) result.push(start);
  return [...result, last];
}

function boxGrid(size, stride) {
  const starts = firstPixels(size, stride);
  return starts.flatMap((top) => starts.map((left) => ({ top, left, size })));
}

function eachPixel({ top, left, size }, visit) {
  for (let row = top; row < top + size; row++)
    for (let column = left; column < left + size; column++) visit(row * SIDE + column);
}

function holds(box, mask) {
  let found = false;
  eachPixel(box, (i) => (found ||= mask[i] > 0));
  return found;
}

// Noise inside the box, the clean slice around it; `clean` in [-1, 1].
function withNoise(clean, field, alphaBar, box) {
  const [signal, noise] = [Math.sqrt(alphaBar), Math.sqrt(1 - alphaBar)];
  const result = Float32Array.from(clean);
  eachPixel(box, (i) => (result[i] = signal * clean[i] + noise * field[i]));
  return result;
}

const toSigned = (plane) => Float32Array.from(plane, (value) => 2 * value - 1);
const toUnit = (plane) => Float32Array.from(plane, (value) => (Math.min(1, Math.max(-1, value)) + 1) / 2);

// Boxes laid side by side; where they overlap, the mean of their predictions; the slice where there is none.
function stitcher(clean) {
  const [sum, count] = [new Float64Array(PIXELS), new Uint16Array(PIXELS)];
  return {
    add(prediction, box) {
      eachPixel(box, (i) => {
        sum[i] += prediction[i];
        count[i] += 1;
      });
    },
    result: () => Float32Array.from(clean, (value, i) => (count[i] ? sum[i] / count[i] : value)),
  };
}
