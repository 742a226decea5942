// The PCA of components.py: one slice rebuilt from `counts` components, and two shares for each count.

async function load(frames) {
  const packed = [frames.image, frames.lesion, frames.rebuilt, frames.palette];
  const [image, lesion, rebuilt, palette] = await Promise.all(packed.map(unpack));
  return { ...frames, image, lesion, rebuilt, heat: heats(palette) };
}

function assemble(data) {
  const size = { height: data.size[0], width: data.size[1] };
  const pixels = size.height * size.width;
  const last = data.counts.length - 1;
  const at = (i) => (last ? i / last : 0);
  const count = slider(["components K"], last, data.start, "components");
  const outline = choice("checkbox", "outline the lesion", "outline", true);
  const captions = { scan: "scan x", rebuilt: "reconstruction x̂", residual: "residual |x − x̂|" };
  const [scan, rebuilt, residual] = Object.entries(captions).map(([name, text]) => panel(name, text, size));
  const said = status("components");
  const percent = [0, 0.5, 1].map((y) => [y, `${100 * y} %`]);
  const plot = chart("shares", { xlabel: "components K", ylabel: "share", yticks: percent,
    xticks: data.counts.map((k, i) => [at(i), String(k)]).filter((_, i) => i % 2 === 0 || last < 6) });
  plot.series(data.missed.map((share, i) => [at(i), share]), "var(--accent)");
  plot.series(data.copied.map((share, i) => [at(i), share]), data.lesion_colour);
  const update = () => {
    const i = count.value;
    const k = data.counts[i];
    const plane = data.rebuilt.subarray(i * pixels, (i + 1) * pixels);
    const level = (j) => Math.min(LEVELS, Math.floor(Math.abs(data.image[j] - plane[j]) / data.limit + 0.5));
    const [missed, copied] = [data.missed[i], data.copied[i]].map((share) => `${(100 * share).toFixed(0)} %`);
    scan.draw((j) => greys[data.image[j]], "Scan with a lesion");
    rebuilt.draw((j) => greys[plane[j]], `Reconstruction from ${k} components`);
    residual.draw((j) => data.heat[level(j)], `Residual with ${k} components`);
    for (const one of [scan, residual])
      one.outline(outline.value ? border(data.lesion, size.width) : "", data.lesion_colour);
    count.say(String(k));
    said.textContent = `K = ${k}: ${missed} of the healthy twin is missed, ${copied} of the lesion's change is copied.`;
    plot.move(at(i), data.copied[i], `With ${k} components ${missed} of the healthy twin is missed and ${copied} of `
      + "the lesion's change is copied");
  };
  const top = make("div", { class: "top even" }, count.node, make("div", { class: "choices" }, outline.node));
  const pictures = make("div", { class: "panels wide" }, scan.node, rebuilt.node, residual.node);
  const scale = make("div", {}, colourBar(data.heat), ends(data.limit, "|x − x̂| (scaled intensity)"));
  const lines = keys([["var(--accent)", "healthy twin, missed"], [data.lesion_colour, "lesion, copied"]]);
  const left = make("div", {}, said, scale);
  return { nodes: [top, pictures, make("div", { class: "beside" }, left, make("div", {}, plot.node, lines))], update };
}

export default figure("components", load, assemble);
