// The training of training_explorer.py: losses, and one slice as each model rebuilds it after some of the steps. With
// a kernel (`live`) the models go on learning: one message asks for a few steps, its answer asks for the next.

async function load(frames) {
  const packed = [frames.image, frames.lesion, frames.healthy, frames.palette];
  const [image, lesion, healthy, palette] = await Promise.all(packed.map(unpack));
  const learners = await Promise.all(frames.learners.map(async (one) =>
    ({ ...one, rebuilt: await unpack(one.rebuilt) })));
  return { ...frames, image, lesion, healthy, learners, heat: heats(palette) };
}

// Means of up to `count` losses that end at each step.
function running(losses, count) {
  let sum = 0;
  return losses.map((loss, i) => {
    sum += loss - (i >= count ? losses[i - count] : 0);
    return sum / Math.min(i + 1, count);
  });
}

// The losses of all models up to the last step, on a logarithmic scale; `at` marks a step.
function lossChart(learners, losses, at) {
  const last = Math.max(1, ...losses.map((one) => one.length));
  const all = losses.flat();
  const [low, high] = all.length ? [0.9 * Math.min(...all), 1.1 * Math.max(...all)] : [0.1, 1];
  const place = (loss) => Math.log(loss / low) / Math.log(high / low);
  const plot = chart("losses", { xlabel: "step", ylabel: "L1 loss in the box",
    xticks: [0, 0.5, 1].map((x) => [x, String(Math.round(x * last))]),
    yticks: [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2].filter((y) => y > low && y < high)
      .map((y) => [place(y), String(y)]) });
  losses.forEach((one, i) =>
    plot.series(one.map((loss, step) => [(step + 1) / last, place(loss)]), learners[i].colour));
  const said = learners.map((one, i) => `${one.label} ${losses[i][at - 1]?.toFixed(4) ?? "not begun"}`).join(", ");
  plot.move(at / last, undefined, `Loss against the step; after ${at} steps: ${said}`);
  return plot.node;
}

function board(learner, size, data) {
  const rebuilt = panel(`${learner.name}-rebuilt`, "reconstruction x̂", size);
  const residual = panel(`${learner.name}-residual`, "residual |x − x̂|", size);
  const node = make("div", { class: "method", role: "group", "aria-label": learner.label, style: `--method: ${learner.colour}` },
    make("div", { class: "head" }, make("b", {}, learner.label)),
    make("div", { class: "panels" }, rebuilt.node, residual.node),
    make("div", { class: "scale" }, colourBar(data.heat), ends(data.limit, "|x − x̂| (scaled intensity)")));
  return { node, rebuilt, residual };
}

// Play and pause: the step slider moves by itself, from the start again when it is at the end.
function player(step, update, quiet) {
  const button = make("button", { type: "button", "data-control": "play" }, "Play the film");
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    quiet(false);
    button.textContent = "Play the film";
  };
  button.onclick = () => {
    if (timer) return stop();
    if (step.value === Number(step.input.max)) step.input.value = 0;
    button.textContent = "Pause the film";
    quiet(true);
    timer = setInterval(() => {
      if (step.value < Number(step.input.max)) step.input.value = step.value + 1;
      else stop();
      update({ target: step.input });
    }, 700);
    update({ target: step.input });
  };
  return { node: button, stop };
}

// Trains with the kernel; `show` gets the losses and slices of what is there so far.
function trainer(data, model, slice, show) {
  const boxes = data.learners.map((one) => {
    const chosen = select(`box of ${one.label} (px)`, data.box_sizes.map(String), `box-${one.name}`);
    chosen.input.value = String(one.box_size);
    return chosen;
  });
  const button = make("button", { type: "button", "data-control": "train" }, "Go on training");
  const said = make("span", { role: "status", "aria-live": "polite", "data-say": "train" });
  const node = make("fieldset", { "aria-label": "train with this notebook's kernel" },
    make("div", { class: "top" }, ...boxes.map((one) => one.node)),
    make("div", { class: "choices" }, button, said));
  const losses = data.learners.map((one) => [...one.begun]);
  let wanted = false;
  let waiting = false;
  const state = (words) => {
    button.textContent = wanted ? "Pause" : "Go on training";
    node.setAttribute("aria-busy", waiting);
    if (words) said.textContent = words;
  };
  const ask = (steps = data.steps_at_once) => {
    waiting = true;
    model.send({ kind: "train", slice: data.slices[slice.value], steps,
      boxes: Object.fromEntries(data.learners.map((one, i) => [one.name, Number(boxes[i].value)])) });
  };
  button.onclick = () => {
    wanted = !wanted;
    if (wanted && !waiting) ask();
    state(wanted ? "training …" : "paused");
  };
  const answer = async (message) => {
    if (message.kind === "failed") {
      wanted = waiting = false;
      return state(message.message);
    }
    const { learners, slice: shown } = message.view;
    learners.forEach((one, i) => losses[i].push(...one.losses));
    const planes = await Promise.all(learners.map((one) => unpack(one.rebuilt)));
    waiting = false;
    show({ losses, planes, at: losses[0].length, slice: data.slices.indexOf(shown) }, wanted);
    if (wanted) ask();
    else if (shown !== data.slices[slice.value]) ask(0); // the reader moved on meanwhile
    state();
  };
  model.on("msg:custom", answer);
  const leave = () => {
    wanted = false;
    model.off("msg:custom", answer);
  };
  const rebuild = () => waiting || ask(0); // another slice, by the models as they are
  return { node, leave, rebuild };
}

function assemble(data, model) {
  const [height, width] = data.size;
  const pixels = height * width;
  const slice = slider(["slice"], data.slices.length - 1, data.start[0], "slice");
  const step = slider(["training step"], data.steps.length - 1, data.start[1], "step");
  const scan = panel("image", "scan x, not learnt from", { height, width });
  const boards = data.learners.map((one) => board(one, { height, width }, data));
  const said = status("training");
  const plot = make("div");
  let now = null; // what the kernel sent last, until a slider moves on
  const filmed = () => ({ slice: slice.value, at: data.steps[step.value],
    losses: data.learners.map((one) => one.losses),
    planes: data.learners.map((one) => {
      const start = (step.value * data.slices.length + slice.value) * pixels;
      return one.rebuilt.subarray(start, start + pixels);
    }) });
  const draw = (view) => {
    const cut = (values) => values.subarray(view.slice * pixels, (view.slice + 1) * pixels);
    const [image, lesion, healthy] = [data.image, data.lesion, data.healthy].map(cut);
    const path = border(lesion, width);
    const place = `slice ${data.slices[view.slice]}, after ${view.at} steps`;
    const means = view.losses.map((one) => running(one, data.mean_of));
    scan.draw((i) => greys[image[i]], `Scan, slice ${data.slices[view.slice]}`);
    const words = data.learners.map((one, k) => {
      const plane = view.planes[k];
      const away = (i) => Math.abs(image[i] - plane[i]) / LEVELS;
      boards[k].rebuilt.draw((i) => greys[plane[i]], `Reconstruction by ${one.label}, ${place}`);
      boards[k].residual.draw((i) => data.heat[Math.floor(Math.min(1, away(i) / data.limit) * LEVELS + 0.5)],
        `Residual of ${one.label}, ${place}`);
      let [sum, count] = [0, 0];
      healthy.forEach((inside, i) => inside && ((sum += away(i)), (count += 1)));
      const error = count ? (sum / count).toFixed(3) : "none";
      const loss = means[k][view.at - 1]?.toFixed(4) ?? "not begun";
      return `${one.label}: loss ${loss}, error in healthy brain ${error}`;
    });
    for (const one of [scan, ...boards.flatMap((b) => [b.rebuilt, b.residual])]) one.outline(path, data.lesion_colour);
    slice.say(`${data.slices[slice.value]} (z = ${data.heights_mm[slice.value]} mm)`);
    step.say(String(data.steps[step.value]));
    said.textContent = `${now ? "Trained just now, " : ""}${view.at} steps. ${words.join("; ")}.`;
    plot.replaceChildren(lossChart(data.learners, means, view.at));
  };
  const update = (event) => {
    if (event?.target === step.input) now = null;
    if (event?.target === slice.input && now) live.rebuild();
    draw(now ?? filmed());
  };
  const quiet = (moving) => said.setAttribute("aria-live", moving ? "off" : "polite"); // not a word for every picture
  const play = player(step, update, quiet);
  const live = model.get("live") ? trainer(data, model, slice, (view, running) => {
    play.stop();
    quiet(running);
    now = view;
    update();
  }) : null;
  const top = make("div", { class: "top" }, step.node, slice.node, make("div", { class: "choices" }, play.node));
  const sides = make("div", { class: "scan", role: "group", "aria-label": "scan" }, make("div", { class: "panels" }, scan.node));
  const key = keys(data.learners.map((one) => [one.colour, `${one.label}, mean of ${data.mean_of} steps`]));
  const pictures = make("div", { class: "board" }, sides, ...boards.map((b) => b.node));
  const below = make("div", { class: "beside" }, said, make("div", {}, plot, key));
  return { nodes: [top, ...(live ? [live.node] : []), pictures, below], update,
    leave: () => {
      play.stop();
      live?.leave();
    } };
}

export default figure("training", load, assemble);
