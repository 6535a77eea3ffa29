// Runs the networks beside the page, so that it stays usable meanwhile. Requests are answered in their order.
const sessions = {};
let last = Promise.resolve();

async function answer(request) {
  if (request.runtime) {
    ort.env.wasm.wasmBinary = request.runtime;
    ort.env.wasm.numThreads = 1; // more need a server that isolates the page
    ort.env.logLevel = "error";
    return {};
  }
  if (request.network) {
    sessions[request.name] = await ort.InferenceSession.create(request.network);
    return {};
  }
  const feeds = {};
  for (const [name, { type, data, dims }] of Object.entries(request.feeds)) feeds[name] = new ort.Tensor(type, data, dims);
  const began = performance.now();
  const [result] = Object.values(await sessions[request.name].run(feeds));
  return { data: result.data, dims: [...result.dims], milliseconds: performance.now() - began };
}

onmessage = ({ data: request }) => {
  last = last.then(() => answer(request)).then(
    found => postMessage({ id: request.id, ...found }, found.data ? [found.data.buffer] : []),
    error => postMessage({ id: request.id, error: String(error && error.message || error) }),
  );
};
