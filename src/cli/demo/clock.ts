/**
 * The demonstration's service `clock`: a line a second, for as long as somebody listens.
 * @module
 */
import { service } from "../../server/index.ts";

export default service("clock", (stream) => {
  const tell = () => stream.write(`${new Date().toTimeString().slice(0, 8)}\n`);
  tell();
  const ticking = setInterval(tell, 1000);
  stream.once("close", () => clearInterval(ticking));
  // What the caller says is nothing to a clock, but its end is the end.
  stream.resume().once("end", () => stream.end());
});
