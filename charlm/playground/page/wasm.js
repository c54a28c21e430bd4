// The product of a matrix and a vector in WebAssembly (affine.c). Where the browser has none, or no SIMD,
// JavaScript computes the same bits (`product` in math.js).

let wasm = null; // its function, its memory, where x and y are, and where the next matrix goes

/** Start WebAssembly with memory for matrices of these shapes [[O, I], ...]. */
function startWasm(code, shapes) {
  try {
    const { affine, memory, __heap_base: start } = new WebAssembly.Instance(new WebAssembly.Module(code)).exports;
    const longest = Math.max(...shapes.flat()), x = start.value, y = x + 8 * longest, end = y + 8 * longest;
    const size = shapes.reduce((sum, [O, I]) => sum + 4 * O * I, end);
    memory.grow(Math.ceil(size / 2 ** 16));
    const { buffer } = memory, vector = (at) => new Float64Array(buffer, at, longest);
    wasm = { affine, buffer, x: vector(x), y: vector(y), end };
  } catch {
    wasm = null;
  }
}

/** A matrix, moved to the memory of WebAssembly if there is one. */
function placed(matrix) {
  if (!wasm) return matrix;
  const found = new Float32Array(wasm.buffer, wasm.end, matrix.length);
  found.set(matrix);
  wasm.end += found.byteLength;
  return found;
}

function productInWasm(W, x, y) {
  wasm.x.set(x);
  wasm.affine(W.byteOffset, wasm.x.byteOffset, wasm.y.byteOffset, x.length, y.length);
  y.set(wasm.y.subarray(0, y.length));
}
