/**
 * Work as a number that does not depend on the clock, the load and the collector: how often each function of the sources was called. Two
 * requests that nobody may tell apart by their time have to do the same.
 * @module
 */
import { Session } from "node:inspector/promises";

/** Calls of one function, by its place in the sources. */
export type CountedWork = ReadonlyMap<string, number>;

/** Counts calls in this process, from its start to its disposal. */
export class WorkCounter implements AsyncDisposable {
  readonly #inspector: Session;
  readonly #folder: string;

  private constructor(inspector: Session, folder: string) {
    this.#inspector = inspector;
    this.#folder = folder;
  }

  /** @param folder whose files count, such as `/src/server/` */
  static async start(folder: string): Promise<WorkCounter> {
    const inspector = new Session();
    inspector.connect();
    await inspector.post("Profiler.enable");
    await inspector.post("Profiler.startPreciseCoverage", { callCount: true, detailed: false });
    return new WorkCounter(inspector, folder);
  }

  /** What is called while `act` runs. */
  async during(act: () => Promise<unknown>): Promise<CountedWork> {
    await this.#inspector.post("Profiler.takePreciseCoverage"); // counts begin anew
    await act();
    const { result } = await this.#inspector.post("Profiler.takePreciseCoverage");
    const work = new Map<string, number>();
    for (const { url, functions } of result.filter((script) => script.url.includes(this.#folder)))
      for (const { functionName, ranges } of functions) {
        const [whole] = ranges;
        if (whole !== undefined && whole.count > 0)
          work.set(`${url.slice(url.indexOf(this.#folder))}:${functionName}:${whole.startOffset}`, whole.count);
      }
    return work;
  }

  /** The same where it can be done again: the least of three times, as what a server does by the clock may come beside one of them. */
  async least(act: () => Promise<unknown>): Promise<CountedWork> {
    const works = [await this.during(act), await this.during(act), await this.during(act)];
    return works.reduce((least, each) => (callsIn(each) < callsIn(least) ? each : least));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inspector.post("Profiler.stopPreciseCoverage");
    this.#inspector.disconnect();
  }
}

/** All calls together. */
export function callsIn(work: CountedWork): number {
  return [...work.values()].reduce((sum, count) => sum + count, 0);
}
