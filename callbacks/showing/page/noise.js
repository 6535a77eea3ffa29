// GANs that turn noise into images. A sample is what all models make of the same seed: {seed, label, category, codes,
// moves, psi}. Its noise follows from the seed, so models with the same kind of noise get the same.

function random(seed) { // mulberry32: numbers in [0, 1)
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function noiseOf(seed, size, values) {
  const draw = random(seed);
  return Float32Array.from({ length: size }, () => values === "uniform" ? 2 * draw() - 1
    : Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw()));
}

// On the great circle from a to b; uniform noise, which has corners, goes straight.
function between(a, b, t, values) {
  let start = 1 - t, end = t;
  if (values === "normal") {
    let [ab, aa, bb] = [0, 0, 0];
    for (let i = 0; i < a.length; i++) { ab += a[i] * b[i]; aa += a[i] * a[i]; bb += b[i] * b[i]; }
    const angle = Math.acos(Math.min(1 - 1e-6, Math.max(1e-6 - 1, ab / Math.sqrt(aa * bb))));
    start = Math.sin((1 - t) * angle) / Math.sin(angle);
    end = Math.sin(t * angle) / Math.sin(angle);
  }
  return a.map((value, i) => start * value + end * b[i]);
}

class Model {
  constructor(number) {
    this.number = number;
    this.spec = spec.models[number];
    const { generator, mapping, synthesis } = this.spec.networks;
    this.styled = !!mapping;
    this.inputs = (mapping || generator).inputs;
    this.styles = synthesis?.inputs.styles.shape; // batch, layers, size
    this.shape = this.spec.image_shape;
    this.area = this.shape.reduce((a, b) => a * b);
  }

  noise(point) {
    const { shape: [, size], values } = this.inputs.noise;
    if (point.from) return between(this.noise(point.from), this.noise(point.to), point.t, values);
    return point.noise ? Float32Array.from(point.noise) : noiseOf(point.seed, size, values);
  }

  // Inputs of the first network for points, {name: {type, data, dims}}.
  feeds(points, psi) {
    const n = points.length, feeds = {};
    const rows = (size, of) => { const all = new Float32Array(n * size); points.forEach((p, i) => all.set(of(p), i * size)); return { type: "float32", data: all, dims: [n, size] }; };
    const whole = of => ({ type: "int64", data: BigInt64Array.from(points, p => BigInt(of(p))), dims: [n] });
    const size = this.inputs.noise.shape[1];
    feeds.noise = rows(size, p => this.styled ? this.noise(p) : this.moved(this.noise(p).map(x => psi * x), p.moves));
    if (this.inputs.truncation) feeds.truncation = { type: "float32", data: Float32Array.of(psi), dims: [] };
    if (this.inputs.label) feeds.label = whole(p => p.label);
    if (this.inputs.category) feeds.category = whole(p => p.category);
    if (this.inputs.codes) feeds.codes = rows(this.inputs.codes.shape[1], p => p.codes);
    return feeds;
  }

  moved(vector, moves = []) {
    moves.forEach((amount, k) => {
      const direction = amount ? this.spec.directions[k] : null;
      if (direction) for (let i = 0; i < vector.length; i++) vector[i] += amount * direction[i];
    });
    return vector;
  }

  async stylesOf(points, psi) {
    const { data } = await run(`${this.number}-mapping`, this.feeds(points, psi));
    const [, layers, size] = this.styles;
    points.forEach((p, i) => {
      for (let l = 0; l < layers; l++) this.moved(data.subarray((i * layers + l) * size, (i * layers + l + 1) * size), p.moves);
    });
    return data;
  }

  synthesised(styles, n) {
    const [, layers, size] = this.styles;
    return run(`${this.number}-synthesis`, { styles: { type: "float32", data: styles, dims: [n, layers, size] } }, n);
  }

  // Values of images, (n, C, H, W), and what they were made of.
  async make(points, psi) {
    if (this.styled) return this.synthesised(await this.stylesOf(points, psi), points.length);
    return run(`${this.number}-generator`, this.feeds(points, psi), points.length);
  }

  async draw(points, canvases, psi) {
    const { data } = await this.make(points, psi);
    canvases.forEach((canvas, i) => show(canvas, pixels(data, i * this.area, this.shape)));
  }

  // The first layers by one point, the others by another.
  async mix(coarse, fine, cutoff, canvas, psi) {
    const both = await this.stylesOf([coarse, fine], psi);
    const [, layers, size] = this.styles, half = layers * size;
    const mixed = both.slice(half);
    mixed.set(both.subarray(0, cutoff * size));
    const { data } = await this.synthesised(mixed, 1);
    show(canvas, pixels(data, 0, this.shape));
  }
}

async function samplers(main) {
  const models = spec.models.map((_, number) => new Model(number));
  const first = models[0], size = Math.max(...models.map(m => m.shape[1]));
  const count = size <= 64 ? 24 : size <= 128 ? 12 : 8, columns = size <= 64 ? 6 : 4;
  const has = name => models.find(m => m.inputs[name])?.inputs[name];
  const names = has("label")?.names || [], categories = has("category")?.names || [], codes = has("codes")?.shape[1] || 0;
  const directions = Math.max(...models.map(m => m.spec.directions.length));
  let seed = 1, label = -1, category = -1, psi = Math.min(...models.map(m => m.spec.truncation ?? 1));
  let grid = [], chosen = 0, kept = [], current;
  const fresh = (s, i) => ({ seed: s, label: names.length ? (label < 0 ? i % names.length : label) : 0,
    category: categories.length ? (category < 0 ? i % categories.length : category) : 0,
    codes: Array.from({ length: codes }, (_, k) => noiseOf(s + 7919 * (k + 1), 1, "uniform")[0]), moves: Array(directions).fill(0) });
  const copy = p => ({ ...p, codes: [...p.codes], moves: [...p.moves] });
  const perModel = make => el("div", { class: "models" }, ...models.map(m => el("div", {}, ...(models.length > 1 ? [el("h3", {}, m.spec.title)] : []), make(m))));
  const word = p => [names.length ? names[p.label] : "", categories.length ? `category ${categories[p.category]}` : ""].filter(Boolean).join(", ");

  // The grid
  const cells = models.map(() => Array.from({ length: count }, (_, i) => {
    const canvas = el("canvas", { width: 1, height: 1 });
    return { canvas, button: el("button", { type: "button", onclick: () => select(i, true) }, canvas) };
  }));
  const drawGrid = latest(async () => {
    for (const [m, model] of models.entries()) {
      const step = size <= 64 ? 8 : size <= 128 ? 4 : 1; // so that pictures come soon
      for (let i = 0; i < count; i += step) await model.draw(grid.slice(i, i + step), cells[m].slice(i, i + step).map(c => c.canvas), psi);
    }
    cells.forEach(of => of.forEach(({ button }, i) => button.setAttribute("aria-label", `sample ${[grid[i].seed, word(grid[i])].filter(Boolean).join(", ")}: select it and keep it`)));
  });
  function draw() {
    grid = Array.from({ length: count }, (_, i) => fresh(seed + i, i));
    select(Math.min(chosen, count - 1), false);
    return drawGrid();
  }
  function select(number, keep) {
    chosen = number;
    cells.forEach(of => of.forEach(({ button }, i) => button.setAttribute("aria-pressed", i === number)));
    take(grid[number]);
    if (keep) keepIt();
  }
  const again = el("button", { type: "button", class: "main", onclick: () => { seed += count; draw(); } }, "New samples");
  const sheets = () => joined(cells.flatMap(of => of.map(c => c.canvas)), columns);
  const truncation = slider("truncation ψ", { min: 0, max: 1.2, step: 0.05, value: psi, show: v => v.toFixed(2) }, value => { psi = value; drawGrid(); redraw(); });
  const controls = [];
  if (names.length) controls.push(el("h3", {}, "Class"), choice(["all", ...names], 0, n => { label = n - 1; draw(); }).element);
  if (categories.length) controls.push(el("h3", {}, "Categorical code"), choice(["all", ...categories], 0, n => { category = n - 1; draw(); }).element);
  const panels = el("div", { class: models.length > 1 ? "" : "panels wide" });
  main.append(panels);
  panels.append(el("section", {}, el("h2", {}, "Samples"), el("p", { class: "quiet" }, "Click one to keep it, and to change it."),
    el("div", { class: "row" }, again, saveButton(sheets, () => `${spec.title}_samples_${seed}`)), ...controls, truncation.element,
    perModel(m => el("div", { class: "grid", style: `grid-template-columns: repeat(${columns}, 1fr)` }, ...cells[m.number].map(c => c.button)))));

  // The selected one
  const large = models.map(() => el("canvas", { width: 1, height: 1, "aria-label": "the selected sample", role: "img" }));
  const redraw = latest(async () => { for (const [m, model] of models.entries()) await model.draw([current], [large[m]], psi); });
  function take(point) {
    current = copy(point);
    moves.forEach((s, k) => s.set(current.moves[k]));
    codeSliders.forEach((s, k) => s.set(current.codes[k]));
    classes?.set(current.label);
    kinds?.set(current.category);
    nearest.hidden = !current.nearest;
    nearest.replaceChildren(...(current.nearest ? [el("span", { class: "quiet" }, "nearest: "), el("img", { src: current.nearest, alt: "the training images nearest to it" })] : []));
    redraw();
  }
  const nearest = el("div", { class: "near", hidden: true });
  const moves = Array.from({ length: directions }, (_, k) => slider(`direction ${k + 1}`, { min: -4, max: 4, step: 0.1, value: 0 }, value => { current.moves[k] = value; redraw(); }));
  const codeSliders = Array.from({ length: codes }, (_, k) => slider(`code ${k + 1}`, { min: -2, max: 2, step: 0.05, value: 0, show: v => v.toFixed(2) }, value => { current.codes[k] = value; redraw(); }));
  const classes = names.length ? choice(names, 0, n => { current.label = n; redraw(); }) : null;
  const kinds = categories.length ? choice(categories, 0, n => { current.category = n; redraw(); }) : null;
  const back = el("button", { type: "button", onclick: () => take({ ...current, moves: current.moves.map(() => 0) }) }, "Reset directions");
  panels.append(el("section", {}, el("h2", {}, "Change the selected one"), el("div", { class: models.length > 1 ? "panels" : "" },
    el("div", {}, perModel(m => el("div", { class: "large" }, large[m.number])),
      nearest, el("div", { class: "row" }, el("button", { type: "button", onclick: () => keepIt() }, "Keep it"), back, saveButton(() => joined(large, large.length), () => `${spec.title}_sample`))),
    el("div", {}, ...(classes ? [el("h3", {}, "Class"), classes.element] : []), ...(kinds ? [el("h3", {}, "Categorical code"), kinds.element] : []),
      ...codeSliders.map(s => s.element), ...moves.map(s => s.element),
      el("p", { class: "quiet" }, `Directions are those in which ${first.styled ? "the styles w vary" : "the first layer's features vary"} most, in standard deviations.`)))));

  // Samples of which the run has looked for the nearest training images
  const looked = models.length === 1 ? first.spec.neighbors : null;
  if (looked) {
    const size = first.inputs.noise.shape[1];
    const points = looked.samples.map(({ noise, label, nearest }, i) => ({ ...fresh(-1 - i, i), label, nearest, noise: noise.slice(-size),
      ...(categories.length ? { category: noise.indexOf(Math.max(...noise.slice(0, categories.length))) } : {}),
      ...(codes ? { codes: noise.slice(categories.length, categories.length + codes) } : {}) }));
    const shown = points.map((point, i) => el("canvas", { width: 1, height: 1 }));
    lab.neighbors = points;
    for (let i = 0; i < points.length; i += 8) await first.draw(points.slice(i, i + 8), shown.slice(i, i + 8), 1);
    panels.after(el("section", {}, el("h2", {}, "Does it invent or remember?"),
      el("p", { class: "quiet" }, `A sample, and the training images that are nearest to it (by ${looked.space}). Click the sample to keep it and to change it.`),
      ...points.map((point, i) => el("div", { class: "row near" }, el("button", { type: "button", "aria-label": `sample ${i + 1} of the run; select it and keep it`, onclick: () => { take(point); keepIt(); } }, shown[i]),
        el("img", { src: point.nearest, alt: "training images, nearest first" })))));
  }

  // Those that are kept: a walk between two of them, and their styles mixed
  let ends = [0, 1], t = 0, playing = 0;
  const strip = el("div", { class: "kept" });
  const walk = models.map(() => el("canvas", { width: 1, height: 1, role: "img", "aria-label": "on the way from A to B" }));
  const walkTo = latest(async value => {
    if (kept.length < 2) return;
    const [a, b] = ends.map(n => kept[n]);
    const near = value < 0.5 ? a : b, mean = name => a[name].map((x, k) => (1 - value) * x + value * b[name][k]);
    const point = { from: a, to: b, t: value, label: near.label, category: near.category, codes: mean("codes"), moves: mean("moves") };
    for (const [m, model] of models.entries()) await model.draw([point], [walk[m]], psi);
  });
  const along = slider("from A to B", { min: 0, max: 1, step: 0.01, value: 0, show: v => v.toFixed(2) }, value => { t = value; walkTo(t); });
  const play = el("button", { type: "button", onclick: () => { playing ? pause() : go(); } }, "Play");
  const pause = () => { cancelAnimationFrame(playing); playing = 0; play.textContent = "Play"; };
  function go() {
    play.textContent = "Pause";
    let before = performance.now(), way = t >= 1 ? -1 : 1;
    const frame = async now => {
      t += way * Math.min(0.05, (now - before) / 4000);
      before = now;
      if (t >= 1 || t <= 0) { t = Math.min(1, Math.max(0, t)); way = -way; }
      along.set(t);
      await walkTo(t);
      if (playing) playing = requestAnimationFrame(frame);
    };
    playing = requestAnimationFrame(frame);
  }
  const mixed = models.map(() => el("canvas", { width: 1, height: 1, role: "img", "aria-label": "A and B mixed" }));
  const styled = models.filter(m => m.styled);
  const cutoff = styled.length ? slider("layers of A", { min: 0, max: Math.max(...styled.map(m => m.styles[1])), step: 1, value: styled[0].spec.coarse, show: v => String(v) }, () => mix()) : null;
  const mix = latest(async () => {
    if (kept.length < 2) return;
    for (const model of styled) await model.mix(kept[ends[0]], kept[ends[1]], Math.min(cutoff.get(), model.styles[1]), mixed[model.number], psi);
  });
  const pair = el("div", { class: "panels", hidden: true },
    el("div", {}, el("h3", {}, "A walk"), along.element, perModel(m => el("div", { class: "large" }, walk[m.number])),
      el("div", { class: "row" }, play, saveButton(() => joined(walk, walk.length), () => `${spec.title}_between`))),
    ...(cutoff ? [el("div", {}, el("h3", {}, "Their styles mixed: the coarse ones of A, the fine ones of B"), cutoff.element, perModel(m => el("div", { class: "large" }, mixed[m.number])),
      el("div", { class: "row" }, saveButton(() => joined(mixed.filter(c => c.width > 1), 1), () => `${spec.title}_mixed`)))] : []));
  const hint = el("p", { class: "quiet" }, "Keep two samples to walk from one to the other.");
  function keepIt() {
    const same = kept.findIndex(point => JSON.stringify(point) === JSON.stringify(current));
    if (same < 0) kept.push(copy(current));
    if (kept.length > 1) ends = same < 0 ? [kept.length - 2, kept.length - 1] : ends;
    listKept();
  }
  function drop(n) {
    kept.splice(n, 1);
    ends = ends.map(e => Math.max(0, e > n || e >= kept.length ? e - 1 : e));
    if (ends[0] === ends[1]) ends = [0, Math.min(1, kept.length - 1)];
    listKept();
  }
  async function listKept() {
    strip.replaceChildren(...kept.map((point, n) => {
      const canvas = el("canvas", { width: 1, height: 1 });
      first.draw([point], [canvas], psi);
      const name = [`kept sample ${n + 1}`, word(point)].filter(Boolean).join(", ");
      const small = (text, attributes) => el("button", { type: "button", class: "tiny", ...attributes }, text);
      return el("figure", {}, el("button", { type: "button", "aria-label": `${name}: change it above`, onclick: () => take(point) }, canvas),
        el("figcaption", {}, ...(word(point) ? [word(point), el("br")] : []),
          ...["A", "B"].map((end, e) => small(end, { "aria-label": `${name} is ${end}`, "aria-pressed": String(kept.length > 1 && ends[e] === n), onclick: () => { ends[e] = n; listKept(); } })),
          small("×", { "aria-label": `${name}: do not keep it`, onclick: () => drop(n) })));
    }));
    pair.hidden = kept.length < 2;
    hint.hidden = kept.length > 1;
    if (kept.length > 1) { walkTo(t); mix(); }
  }
  main.append(el("section", {}, el("h2", {}, "Kept samples, and walks between two of them"), hint, strip, pair));
  Object.assign(lab, { models, draw, select, take, current: () => current, grid: () => grid, psi: () => psi, large, walk, mixed, cells, kept: () => kept });
  await draw();
}
