/**
 * VIA: another session server says for whom it opens this stream, and how many servers the stream has come through (PROTOCOL §4.12; decision
 * 0024). Whose word counts is trusts.ts's business.
 *
 * ```
 *   VIA 1            as the server itself          VIA 1 -          as nobody
 *   VIA 1 token      as whom the token is about, if the server that signed in is trusted; else refused
 * ```
 *
 * Every refusal closes: what stands behind the line would otherwise be done as the other server, which may do more than its callers.
 * @module
 */
import type { Next, Service } from "../service.ts";

/** Session servers that a stream may come through: a chain is two or three long, and what is longer goes round in a circle. */
export const HOPS_MAX = 8;

/** Takes what another server says of a stream. */
export const via: Service = {
  word: "VIA",
  async serve(talk): Promise<Next> {
    const [count = "", who, ...more] = talk.args;
    if (!/^[1-9]\d{0,3}$/.test(count) || more.length > 0) {
      talk.refuse(501, "VIA takes a number, and who is calling");
      return "closed";
    }
    const hops = Number(count);
    if (hops > HOPS_MAX) {
      talk.refuse(508, "the stream has come through too many servers");
      return "closed";
    }
    const { passage } = talk;
    if (who === undefined) passage.came(hops);
    else if (who === "-") passage.cameAsNobody(hops);
    else if (!(await passage.cameAs(hops, who))) {
      talk.refuse(403, "that is not believed of a caller");
      return "closed";
    }
    talk.accept();
    return "lines";
  },
};
