// The forward process of forward.py: x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps, from one packed field per noise.

const NOISE_ZERO = 128; // levels of noise: 128 is 0 ...
const NOISE_STEPS = 32; // ... and 32 levels are one standard deviation

async function load(frames) {
  const kinds = Object.entries(frames.noise);
  const fields = await Promise.all(kinds.map(([, text]) => unpack(text)));
  return { ...frames, image: await unpack(frames.image),
    noise: Object.fromEntries(kinds.map(([kind], i) => [kind, fields[i]])) };
}

function assemble(data) {
  const size = { height: data.size[0], width: data.size[1] };
  const curves = data.alpha_bars;
  const last = Object.values(curves)[0].length - 1;
  const timestep = slider(["timestep t"], last, data.start, "timestep");
  const noise = select("noise ε", Object.keys(data.noise), "noise");
  const schedule = select("schedule", Object.keys(curves), "schedule");
  const [clean, field, noisy] = [["clean", "clean slice x₀"], ["noise", "noise ε"], ["noisy", "noisy slice xₜ"]]
    .map(([name, text]) => panel(name, text, size));
  const said = status("forward");
  const plot = chart("alpha_bar", { xlabel: "timestep t", ylabel: "signal left, ᾱ",
    xticks: [0, 250, 500, 750, last].map((t) => [t / last, String(t)]), yticks: [[0, "0"], [0.5, "0.5"], [1, "1"]] });
  const grey = (x, range) => // -range to range is black to white
    greys[Math.floor(((Math.min(range, Math.max(-range, x)) / range + 1) / 2) * LEVELS + 0.5)];
  const update = () => {
    const [t, kind] = [timestep.value, noise.value];
    const alphaBar = curves[schedule.value][t];
    const [signal, share] = [Math.sqrt(alphaBar), Math.sqrt(1 - alphaBar)];
    const x0 = (i) => (data.image[i] / LEVELS) * 2 - 1;
    const eps = (i) => (data.noise[kind][i] - NOISE_ZERO) / NOISE_STEPS;
    const place = `${kind}, t = ${t}, ᾱ = ${alphaBar.toFixed(3)}`;
    clean.draw((i) => grey(x0(i), data.range), "Clean slice");
    field.draw((i) => grey(eps(i), 3), `Field of ${kind}`);
    noisy.draw((i) => grey(signal * x0(i) + share * eps(i), data.range), `Noisy slice: ${place}`);
    timestep.say(`${t} (ᾱ = ${alphaBar.toFixed(3)})`);
    said.textContent = `xₜ = ${signal.toFixed(3)} x₀ + ${share.toFixed(3)} ε: ${(100 * alphaBar).toFixed(1)} % of `
      + "the signal's variance is left.";
    plot.clear();
    plot.series(curves[schedule.value].map((a, i) => [i / last, a]), "var(--accent)");
    plot.move(t / last, alphaBar, `Signal left against the timestep, ${schedule.value}: `
      + `${alphaBar.toFixed(3)} at ${t}`);
  };
  const top = make("div", { class: "top" }, timestep.node, noise.node, schedule.node);
  const pictures = make("div", { class: "panels wide" }, clean.node, field.node, noisy.node);
  return { nodes: [top, pictures, make("div", { class: "beside" }, said, plot.node)], update };
}

export default figure("forward", load, assemble);
