/**
 * Preloaded into the server whose memory is measured (`node --expose-gc --import`): collects garbage when asked by a signal, so that what
 * is counted is what fived holds and not what V8 has not come round to. SIGWINCH, as it means nothing to a program without a terminal.
 * @module
 */
process.on("SIGWINCH", () => {
  // Twice: what the first run finalizes, the second can free.
  globalThis.gc?.();
  setImmediate(() => globalThis.gc?.());
});
