const spec = JSON.parse(document.getElementById("spec").textContent);
const byId = id => document.getElementById(id);

// Elements

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function slider(label, { min, max, step, value, show = v => v.toFixed(1) }, changed) {
  const input = el("input", { type: "range", min, max, step, value });
  const output = el("output", {}, show(+input.value));
  const set = v => { input.value = v; output.textContent = show(+input.value); };
  input.addEventListener("input", () => { set(input.value); changed(+input.value); });
  return { element: el("label", { class: "slider" }, el("span", {}, label), input, output), set, get: () => +input.value, input };
}

// Buttons of which one is pressed, or with `several` any number.
function choice(names, pressed, changed, several = false) {
  const buttons = names.map((name, number) => el("button", { type: "button", onclick: () => {
    if (several) pressed[number] = !pressed[number]; else pressed = number;
    show(); changed(pressed);
  } }, name));
  const show = () => buttons.forEach((button, n) => button.setAttribute("aria-pressed", several ? !!pressed[n] : pressed === n));
  show();
  return { element: el("div", { class: "row", role: "group" }, ...buttons), set: value => { pressed = value; show(); } };
}

function failed(sentence) {
  byId("status").className = "failed";
  byId("doing").textContent = sentence;
}

// The networks

function unpacked(id) {
  const text = atob(byId(id).textContent.trim()), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  byId(id).remove(); // its memory is worth having back
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

let worker, broken, asked = 0, busy = 0;
const waiting = new Map();

function ask(request, moved = []) {
  return new Promise((resolve, reject) => {
    if (broken) throw broken;
    waiting.set(++asked, { resolve, reject });
    worker.postMessage({ id: asked, ...request }, moved);
  });
}

// What a network makes of inputs: {data, dims}. The page says that it is computing when that takes a while.
async function run(name, feeds, samples = 1) {
  busy++;
  const soon = setTimeout(() => { byId("doing").textContent = "computing …"; byId("status").className = ""; }, 300);
  try {
    const found = await ask({ name, feeds });
    if (!name.endsWith("mapping")) pace(found.milliseconds / samples, samples);
    return found;
  } finally {
    clearTimeout(soon);
    if (!--busy && byId("status").className !== "failed") byId("status").className = "idle";
  }
}

function pace(milliseconds, samples) {
  lab.milliseconds = milliseconds;
  byId("pace").textContent = `Last: ${milliseconds < 10 ? milliseconds.toFixed(1) : milliseconds.toFixed(0)} ms an image` + (samples > 1 ? `, ${samples} at once.` : ".");
}

// Calls that come faster than they are answered: all but the newest are left out. The last argument of a call tells
// whether a newer one is waiting.
function latest(work) {
  let running = false, again = null;
  return async function call(...given) {
    again = given;
    if (running) return;
    running = true;
    try {
      while (again) {
        const now = again;
        again = null;
        await work(...now, () => again !== null);
        byId("status").className = "idle"; // also of what failed before
      }
    } catch (error) {
      failed(`This did not work: ${error.message || error}`);
    } finally { running = false; }
  };
}

// Pictures

function sized(canvas, width, height) {
  canvas.width = width; canvas.height = height;
  canvas.classList.toggle("small", Math.max(width, height) <= 128);
  return canvas;
}

// Values in [-1, 1], one image of (C, H, W) that begins at an offset, into pixels.
function pixels(data, offset, [channels, height, width]) {
  const image = new ImageData(width, height), area = width * height;
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = (data[offset + (channels === 1 ? 0 : c * area) + i] + 1) * 127.5;
    image.data[4 * i + 3] = 255;
  }
  return image;
}

function show(canvas, image) {
  if (canvas.width !== image.width || canvas.height !== image.height) sized(canvas, image.width, image.height);
  canvas.getContext("2d", { willReadFrequently: true }).putImageData(image, 0, 0);
}

function save(canvas, name) {
  canvas.toBlob(blob => {
    const url = URL.createObjectURL(blob);
    el("a", { href: url, download: `${name}.png` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  });
}

// Canvases side by side as one, with so many columns.
function joined(canvases, columns) {
  const width = Math.max(...canvases.map(c => c.width)), height = Math.max(...canvases.map(c => c.height)), gap = 2;
  const sheet = el("canvas"), context = sheet.getContext("2d");
  sheet.width = columns * (width + gap) - gap;
  sheet.height = Math.ceil(canvases.length / columns) * (height + gap) - gap;
  context.fillStyle = "#fff";
  context.fillRect(0, 0, sheet.width, sheet.height);
  canvases.forEach((canvas, n) => context.drawImage(canvas, (n % columns) * (width + gap), Math.floor(n / columns) * (height + gap)));
  return sheet;
}

const saveButton = (canvas, name) => el("button", { type: "button", onclick: () => save(canvas(), plain(name())) }, "Save as PNG");

// What is asked of a number in a file name.
const plain = text => text.replace(/[^\w.-]+/g, "_");

// For whoever drives the page: `lab.ready` is kept when the first pictures are drawn.
const lab = { spec, run, pixels };
window.lab = lab;

function facts() {
  for (const model of spec.models) {
    const paper = model.paper ? [" · ", el("a", { href: model.paper }, "paper")] : [];
    const name = spec.models.length > 1 ? [el("strong", {}, model.title), " · "] : [];
    byId("facts").append(el("p", {}, ...name, model.facts.join(" · "), ...paper));
  }
}

async function start() {
  facts();
  if (typeof WebAssembly !== "object" || typeof Worker !== "function" || typeof DecompressionStream !== "function") {
    return failed("This browser has no WebAssembly (or it is switched off), with which the network runs: open the page in a current Firefox, Chrome, Edge or Safari.");
  }
  try {
    // In a page that is a file, browsers start no workers that are modules: the module is made an ordinary script, and
    // what the worker does stands behind it.
    const library = new TextDecoder().decode(await unpacked("runtime-script")).replaceAll("import.meta.url", "self.location.href");
    const exported = library.lastIndexOf("export{");
    const names = library.slice(exported + 7, library.indexOf("}", exported)).replace(/([\w$]+) as ([\w$]+)/g, "$2: $1");
    const source = `${library.slice(0, exported)}\nconst ort = { ${names} };\n{ ${byId("worker").textContent} }`;
    worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    worker.onmessage = ({ data: { id, error, ...found } }) => {
      const { resolve, reject } = waiting.get(id);
      waiting.delete(id);
      if (error) reject(new Error(error)); else resolve(found);
    };
    worker.onerror = event => {
      broken = new Error(event.message || "the worker could not be started");
      waiting.forEach(({ reject }) => reject(broken));
      waiting.clear();
    };
    const runtime = await unpacked("runtime");
    await ask({ runtime }, [runtime]);
    for (const [number, model] of spec.models.entries()) {
      for (const name of Object.keys(model.networks)) {
        const network = await unpacked(`network-${number}-${name}`);
        await ask({ name: `${number}-${name}`, network: new Uint8Array(network) }, [network]);
      }
    }
    byId("main").hidden = false;
    await (spec.models[0].networks.generator?.inputs.images ? translators : samplers)(byId("main"));
    byId("status").className = "idle";
  } catch (error) {
    failed(`The network could not be started here: ${error.message || error}`);
    throw error;
  }
}
