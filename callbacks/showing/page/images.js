// GANs that turn images into images. All models of a page translate the same image.

const GREY = [19595, 38470, 7471]; // ITU-R 601 in 1 / 65536

// Pixels as values in [-1, 1], (1, channels, H, W).
function values(image, channels) {
  const area = image.width * image.height, data = new Float32Array(channels * area);
  for (let i = 0; i < area; i++) {
    const [r, g, b] = image.data.subarray(4 * i, 4 * i + 3);
    if (channels === 1) data[i] = ((r * GREY[0] + g * GREY[1] + b * GREY[2] + 0x8000) >> 16) / 127.5 - 1;
    else { data[i] = r / 127.5 - 1; data[area + i] = g / 127.5 - 1; data[2 * area + i] = b / 127.5 - 1; }
  }
  return { data, width: image.width, height: image.height };
}

// A part of values (channels, H, W).
function cut({ data, width, height }, channels, left, top, w, h) {
  const part = new Float32Array(channels * w * h);
  for (let c = 0; c < channels; c++) for (let y = 0; y < h; y++) {
    const from = c * width * height + (top + y) * width + left;
    part.set(data.subarray(from, from + w), (c * h + y) * w);
  }
  return part;
}

class Translator {
  constructor(number) {
    this.number = number;
    this.spec = spec.models[number];
    this.network = "generator";
    this.shape = this.spec.networks.generator.inputs.images.shape;
    this.scale = parseInt(this.spec.networks.generator.output.shape[2]) || 1;
    this.margin = this.spec.networks.generator.margin;
    this.canvas = el("canvas", { width: 1, height: 1 });
  }

  async call(data, width, height, more) {
    const channels = this.shape[1];
    return run(`${this.number}-${this.network}`, { images: { type: "float32", data, dims: [1, channels, height, width] }, ...more });
  }

  // The translation of an image as pixels: whole or, where a part depends on its surroundings alone, tile by tile.
  async translate(image, more, progress, stale) {
    const channels = this.shape[1], input = values(image, channels), { width, height } = image, side = 128;
    const network = this.spec.networks[this.network].inputs;
    const given = Object.fromEntries(Object.entries(more).filter(([name]) => network[name]));
    if (this.margin === null || Math.max(width, height) <= side) {
      const { data, dims } = await this.call(input.data, width, height, given);
      return pixels(data, 0, dims.slice(1));
    }
    const out = new ImageData(width * this.scale, height * this.scale), s = this.scale, m = this.margin;
    const tiles = [];
    for (let top = 0; top < height; top += side) for (let left = 0; left < width; left += side) tiles.push([left, top]);
    for (const [n, [left, top]] of tiles.entries()) {
      progress(n / tiles.length);
      if (stale()) return null;
      const x = Math.max(0, left - m), y = Math.max(0, top - m);
      const w = Math.min(width, left + side + m) - x, h = Math.min(height, top + side + m) - y;
      const { data, dims } = await this.call(cut(input, channels, x, y, w, h), w, h, given);
      const tile = pixels(data, 0, dims.slice(1));
      const columns = Math.min(side, width - left) * s, rows = Math.min(side, height - top) * s;
      for (let row = 0; row < rows; row++) {
        const from = 4 * (((top - y) * s + row) * tile.width + (left - x) * s);
        out.data.set(tile.data.subarray(from, from + 4 * columns), 4 * ((top * s + row) * out.width + left * s));
      }
    }
    progress(1);
    return out;
  }
}

// A canvas to draw on: brush and rectangles, in the colours that mean something or in any.
function easel(size, colours, changed) {
  const canvas = el("canvas", { width: size, height: size, class: `paint${size <= 128 ? " small" : ""}`, tabindex: 0, role: "img", "aria-label": "drawing; with the arrow keys a cross moves, and the space key draws there" });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const named = Object.entries(colours), before = [];
  let colour = named.length ? named[Math.min(2, named.length - 1)][1] : "#202020", tool = named.length ? 1 : 0, width = Math.max(2, size / 32), start = null, base = null, cursor = [size / 2, size / 2];
  const fill = (c, ...box) => { context.fillStyle = c; context.fillRect(...box); };
  const picker = el("input", { type: "color", value: colour, "aria-label": "any colour", oninput: event => { colour = event.target.value; mark(); } });
  const swatches = named.map(([name, c]) => el("button", { type: "button", class: "swatch", onclick: () => { colour = c; picker.value = c; mark(); } }, el("i", { style: `background:${c}` }), name));
  const mark = () => swatches.forEach((button, n) => button.setAttribute("aria-pressed", named[n][1] === colour));
  mark();
  const at = event => { const box = canvas.getBoundingClientRect(); return [(event.clientX - box.left) / box.width * size, (event.clientY - box.top) / box.height * size].map(Math.round); };
  const keep = () => { before.push(context.getImageData(0, 0, size, size)); if (before.length > 30) before.shift(); };
  function stroke([x, y], [a, b]) {
    const steps = Math.max(1, Math.hypot(x - a, y - b));
    for (let i = 0; i <= steps; i++) fill(colour, Math.round(a + (x - a) * i / steps - width / 2), Math.round(b + (y - b) * i / steps - width / 2), Math.round(width), Math.round(width));
  }
  function move(event) {
    if (!start) return;
    const now = at(event);
    if (tool) { context.putImageData(base, 0, 0); fill(colour, Math.min(start[0], now[0]), Math.min(start[1], now[1]), Math.abs(now[0] - start[0]), Math.abs(now[1] - start[1])); }
    else { stroke(now, start); start = now; }
  }
  canvas.addEventListener("pointerdown", event => { keep(); base = before.at(-1); start = at(event); canvas.setPointerCapture(event.pointerId); if (!tool) { stroke(start, start); } });
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerup", event => { move(event); if (start) { start = null; changed(); } });
  canvas.addEventListener("keydown", event => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (way) { const next = cursor.map((c, i) => Math.min(size, Math.max(0, c + way[i] * width))); if (event.shiftKey) { keep(); stroke(next, cursor); changed(); } cursor = next; point(); event.preventDefault(); }
    if (event.key === " ") { keep(); stroke(cursor, cursor); changed(); event.preventDefault(); }
  });
  const cross = el("span", { class: "cross", "aria-hidden": "true" }, "+");
  const point = () => { cross.style.left = `${100 * cursor[0] / size}%`; cross.style.top = `${100 * cursor[1] / size}%`; };
  point();
  const clear = c => { keep(); fill(c, 0, 0, size, size); };
  fill(named.length ? named[0][1] : "#ffffff", 0, 0, size, size);
  if (colours.wall && colours.window && colours.door && !colours.road) { // a house to begin with
    const u = size / 16;
    fill(colours.wall, u, u, 14 * u, 15 * u);
    for (let row = 0; row < 3; row++) for (let column = 0; column < 3; column++) {
      if (row === 2 && column === 1) fill(colours.door, 6.5 * u, 11.5 * u, 3 * u, 4.5 * u);
      else fill(colours.window, (2.5 + 4 * column) * u, (2.5 + 4.5 * row) * u, 3 * u, 3 * u);
    }
  }
  const tools = choice(["Brush", "Rectangle"], tool, n => { tool = n; });
  const broad = slider("brush", { min: 1, max: size / 4, step: 1, value: width, show: v => `${v} px` }, v => { width = v; });
  const undo = el("button", { type: "button", onclick: () => { if (before.length) { context.putImageData(before.pop(), 0, 0); changed(); } } }, "Undo");
  const wipe = el("button", { type: "button", onclick: () => { clear(named.length ? named[0][1] : "#ffffff"); changed(); } }, "Clear");
  const element = el("div", {}, el("div", { class: "row" }, ...swatches, ...(named.length ? [] : [picker])), el("div", { class: "easel" }, canvas, cross), el("div", { class: "row" }, tools.element, undo, wipe), broad.element);
  return { element, canvas, image: () => context.getImageData(0, 0, size, size) };
}

// The original over the result, up to where the slider stands, and a lens that shows both enlarged.
function comparison(translator, original) {
  const over = el("canvas", { class: "over", width: 1, height: 1 });
  const lens = el("canvas", { class: "lens", width: 220, height: 220, hidden: true });
  const view = el("div", { class: "view", tabindex: 0, role: "img", "aria-label": `result of ${translator.spec.title}; with the lens on, the arrow keys move it` }, translator.canvas, over, lens);
  const wipe = slider("original", { min: 0, max: 100, step: 1, value: 0, show: v => `${v} %` }, v => { over.style.clipPath = `inset(0 ${100 - v}% 0 0)`; });
  over.style.clipPath = "inset(0 100% 0 0)";
  let magnifies = translator.scale > 1, place = [0.5, 0.5];
  const zoom = 3;
  function look() {
    lens.hidden = !magnifies || translator.canvas.width < 2;
    if (lens.hidden) return;
    const box = view.getBoundingClientRect(), context = lens.getContext("2d"), result = translator.canvas;
    lens.style.left = `${place[0] * box.width - 110}px`;
    lens.style.top = `${place[1] * box.height - 110}px`;
    const across = 220 / zoom / box.width * result.width; // pixels of the result that the lens shows
    [[result, 0], [over, 110]].forEach(([canvas, from]) => {
      const factor = canvas.width / result.width, width = across * factor;
      context.save();
      context.beginPath();
      context.rect(from ? 0 : 110, 0, 110, 220);
      context.clip();
      context.imageSmoothingEnabled = canvas === over && translator.scale > 1;
      context.fillStyle = "#fff";
      context.fillRect(0, 0, 220, 220);
      context.drawImage(canvas, place[0] * canvas.width - width / 2, place[1] * canvas.height - width / 2, width, width, 0, 0, 220, 220);
      context.restore();
    });
    context.fillRect(109, 0, 2, 220);
  }
  view.addEventListener("pointermove", event => { const box = view.getBoundingClientRect(); place = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]; look(); });
  view.addEventListener("keydown", event => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (way) { place = place.map((p, i) => Math.min(1, Math.max(0, p + way[i] * 0.03))); look(); event.preventDefault(); }
  });
  const glass = el("button", { type: "button", "aria-pressed": String(magnifies), onclick: () => { magnifies = !magnifies; glass.setAttribute("aria-pressed", magnifies); look(); } }, "Lens (left: original)");
  return {
    element: el("div", {}, el("h3", {}, translator.spec.title), view, wipe.element, el("div", { class: "row" }, glass, saveButton(() => translator.canvas, () => `${translator.spec.title}_${original()}`))),
    update(image, result) { show(over, image); show(translator.canvas, result); look(); },
    wipe,
  };
}

async function translators(main) {
  const models = spec.models.map((_, number) => new Translator(number)), first = models[0];
  const size = first.scale > 1 ? 64 : first.spec.image_shape[1];
  const domains = models.map(m => m.spec.networks.generator.inputs.domains).find(Boolean);
  const several = domains?.values === "numbers";
  let opened = null; // the file that is shown, before it was made smaller
  let source = null, name = "drawing", limit = Math.max(256, size), wanted = domains?.names.map((_, n) => n === 0), seed = 0;
  const progress = el("progress", { max: 1, value: 0, hidden: true, "aria-label": "tiles done" });
  const views = models.map(m => comparison(m, () => name));
  const note = el("p", { class: "quiet" }, "");

  const translate = latest(async (...given) => {
    const stale = given.at(-1);
    if (!source) return;
    const more = { seed: { type: "int64", data: BigInt64Array.of(BigInt(seed)), dims: [] } };
    if (domains) more.domains = { type: "float32", data: Float32Array.from(wanted, Number), dims: [1, wanted.length] };
    const image = source;
    progress.hidden = true; // of one that was given up
    for (const [n, model] of models.entries()) {
      const result = await model.translate(image, more, done => { progress.hidden = done >= 1; progress.value = done; }, stale);
      if (!result) return; // a newer image is waiting
      views[n].update(image, result);
      lab.result = result;
    }
    lab.source = image;
    lab.translated = (lab.translated || 0) + 1;
    const was = opened && opened.width > image.width ? `, made smaller from ${opened.width} × ${opened.height}` : "";
    note.textContent = `${image.width} × ${image.height} pixels${was}${first.scale > 1 ? `, enlarged to ${image.width * first.scale} × ${image.height * first.scale}` : ""}.`;
  });


  async function open(file) {
    let picture;
    try { picture = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" }); }
    catch { note.textContent = `${file.name || "This"} is no image that the browser can read: drop a PNG, JPEG or WebP file.`; return; }
    opened = picture;
    name = plain((file.name || "image").replace(/\.\w+$/, ""));
    fit();
  }
  function fit() {
    const factor = limit ? Math.min(1, limit / Math.max(opened.width, opened.height)) : 1;
    const canvas = el("canvas"), context = canvas.getContext("2d", { willReadFrequently: true });
    canvas.width = Math.max(1, Math.round(opened.width * factor));
    canvas.height = Math.max(1, Math.round(opened.height * factor));
    context.fillStyle = first.spec.background; // behind what is transparent
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(opened, 0, 0, canvas.width, canvas.height);
    source = context.getImageData(0, 0, canvas.width, canvas.height);
    show(preview, source);
    preview.hidden = false;
    return translate().then(() => views[0].element.scrollIntoView({ block: "nearest", behavior: "smooth" }));
  }

  const file = el("input", { type: "file", accept: "image/*", onchange: event => event.target.files[0] && open(event.target.files[0]) });
  const preview = el("canvas", { class: "preview", width: 1, height: 1, hidden: true, role: "img", "aria-label": "your image" });
  const drop = el("div", { class: "drop" }, el("div", { class: "row" }, el("label", { class: "file" }, "Choose an image", file), "or drop one here, or paste it."), preview, note);
  for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, event => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("dragover", event => event.preventDefault());
  document.addEventListener("drop", event => { event.preventDefault(); drop.classList.remove("over"); const given = event.dataTransfer.files[0]; if (given) open(given); });
  document.addEventListener("paste", event => { const given = [...event.clipboardData.files][0]; if (given) open(given); });
  const sizes = [64, 128, 256, 512, 1024].filter(s => s >= size / 4);
  const largest = el("select", { "aria-label": "longest side of the image that is translated", onchange: event => { limit = +event.target.value; if (opened && name !== "drawing") fit(); } },
    ...sizes.map(s => el("option", { value: s, ...(s === limit ? { selected: true } : {}) }, `at most ${s} px`)), el("option", { value: 0 }, "as large as it is"));

  const controls = [];
  const back = models.filter(m => m.spec.networks.generator_back);
  const painted = Object.keys(first.spec.colours).length > 0 && first.spec.labels_are === "target"; // what can be painted is what the way back begins with
  if (painted) back.forEach(m => { m.network = "generator_back"; });
  if (back.length) controls.push(el("h3", {}, "Direction"), choice(first.spec.directions_of_data, painted ? 1 : 0, n => { back.forEach(m => { m.network = n ? "generator_back" : "generator"; }); translate(); }).element);
  if (domains) controls.push(el("h3", {}, several ? "Attributes" : "Domain"), choice(domains.names, several ? wanted : 0, now => { wanted = domains.names.map((_, n) => several ? !!now[n] : n === now); translate(); }, several).element);
  if (models.some(m => m.spec.networks.generator.inputs.seed)) controls.push(el("div", { class: "row" }, el("button", { type: "button", onclick: () => { seed++; translate(); } }, "Another variant"), el("span", { class: "quiet" }, "Half of some features are dropped, others each time.")));
  const drawing = easel(size, first.spec.colours, () => use());
  function use() { name = "drawing"; opened = null; source = drawing.image(); return translate(); }
  const about = first.scale > 1 ? `Makes images ${first.scale} times as large, tile by tile.` : `Trained on ${first.spec.image_shape[1]} px; images of other sizes are taken, too.`;
  main.append(
    el("div", { class: "panels" },
      el("section", {}, el("h2", {}, "Your image"), el("p", { class: "quiet" }, about), drop, el("div", { class: "row" }, largest), ...controls,
        el("h2", { style: "margin-top:1em" }, Object.keys(first.spec.colours).length ? "Or paint with the labels' colours" : "Or draw one"), drawing.element,
        el("div", { class: "row" }, el("button", { type: "button", class: "main", onclick: () => use() }, "Translate the drawing"), saveButton(() => drawing.canvas, () => "drawing"))),
      el("section", {}, el("h2", {}, "Result"), progress, el("div", { class: models.length > 1 ? "models" : "" }, ...views.map(v => v.element)))));
  Object.assign(lab, { models, open, use, translate, views, drawing, setSeed: value => { seed = value; }, setLimit: value => { limit = value; } });
  if (Object.keys(first.spec.colours).length) await use(); // there is something to see already
  else note.textContent = "No image yet.";
}
