/**
 * The demonstration's service `echo`: every byte comes back.
 * @module
 */
import { service } from "../../server/index.ts";

export default service("echo", (stream) => {
  stream.pipe(stream);
});
