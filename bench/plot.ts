/**
 * Bar and box charts as SVG text: one panel a figure, one bar or box a peer. Knows nothing of what is measured. Colours sit in a style sheet inside the
 * file and follow the reader's light or dark setting.
 * @module
 */

/** One bar chart. */
export interface Panel {
  readonly title: string;
  readonly unit: string;
  readonly better: "more" | "less";
  readonly digits: number;
  readonly bars: readonly Bar[];
}

/** One bar; ours are drawn in colour. */
export interface Bar {
  readonly name: string;
  readonly value: number;
  readonly ours: boolean;
  /** Drawn as a box from quartile to quartile, its value a line in it, between whiskers; a bar from nothing to the value if left out. */
  readonly spread?: Spread;
}

/** How values lie around their median. */
export interface Spread {
  readonly lowest: number;
  readonly lower: number;
  readonly upper: number;
  readonly highest: number;
}

const COLUMNS = 2;
const MARGIN = 24;
const HEADING = 52;
const PANEL = { width: 440, title: 26, bar: 22, gap: 26 } as const;
/** Left of a bar stands its name, right of the longest its value. */
const NAME_WIDTH = 104;
/** A letter of a name: longer names than the others' have wider room. */
const LETTER_WIDTH = 7.2;
const VALUE_WIDTH = 64;

const STYLE = `
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .paper { fill: #ffffff } .heading { font-size: 17px; font-weight: 600 } .title { font-weight: 600 }
  .quiet { fill: #656d76; font-size: 12px } .ours { fill: #0969da } .theirs { fill: #afb8c1 }
  .whisker { stroke: #656d76 } .middle { stroke: #1f2328; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .paper { fill: #0d1117 } .quiet { fill: #8d96a0 } .ours { fill: #2f81f7 } .theirs { fill: #6e7681 }
    .whisker { stroke: #8d96a0 } .middle { stroke: #e6edf3 }
  }`;

/** Draws the panels under a heading. */
export function draw(heading: string, subheading: string, panels: readonly Panel[]): string {
  const rows = Array.from({ length: Math.ceil(panels.length / COLUMNS) }, (_, row) =>
    panels.slice(row * COLUMNS, (row + 1) * COLUMNS),
  );
  const width = MARGIN + COLUMNS * (PANEL.width + MARGIN);
  const drawn: string[] = [];
  let y = MARGIN + HEADING;
  for (const row of rows) {
    drawn.push(...row.map((panel, column) => drawPanel(panel, MARGIN + column * (PANEL.width + MARGIN), y)));
    y += Math.max(...row.map(heightOf)) + PANEL.gap;
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${y}" width="${width}" height="${y}" role="img">
<title>${escapeXml(heading)}</title>
<style>${STYLE}
</style>
<rect class="paper" width="100%" height="100%"/>
<text class="heading" x="${MARGIN}" y="${MARGIN + 14}">${escapeXml(heading)}</text>
<text class="quiet" x="${MARGIN}" y="${MARGIN + 34}">${escapeXml(subheading)}</text>
${drawn.join("\n")}
</svg>
`;
}

function drawPanel(panel: Panel, x: number, y: number): string {
  const longest = Math.max(...panel.bars.map(({ value, spread }) => spread?.highest ?? value), Number.MIN_VALUE);
  const names = Math.max(NAME_WIDTH, ...panel.bars.map(({ name }) => name.length * LETTER_WIDTH + 8));
  const room = PANEL.width - names - VALUE_WIDTH;
  const bars = panel.bars.map((bar, index) => {
    const top = y + PANEL.title + index * PANEL.bar;
    const at = (value: number) => x + names + (value / longest) * room;
    const ends = at(bar.spread?.highest ?? bar.value);
    return `<text x="${x + names - 8}" y="${top + 13}" text-anchor="end">${escapeXml(bar.name)}</text>
${drawBar(bar, top, at)}
<text x="${(ends + 6).toFixed(1)}" y="${top + 13}">${bar.value.toFixed(panel.digits)}</text>`;
  });
  return `<text class="title" x="${x}" y="${y + 12}">${escapeXml(panel.title)}<tspan class="quiet" dx="8">${escapeXml(panel.unit)}, ${panel.better} is better</tspan></text>
${bars.join("\n")}`;
}

function drawBar({ value, ours, spread }: Bar, top: number, at: (value: number) => number): string {
  const box = (from: number, to: number) =>
    `<rect class="${ours ? "ours" : "theirs"}" x="${from.toFixed(1)}" y="${top + 1}" width="${Math.max(1, to - from).toFixed(1)}" height="${PANEL.bar - 6}" rx="2"/>`;
  if (spread === undefined) return box(at(0), at(value));
  const { lowest, lower, upper, highest } = spread;
  const line = (name: string, [x1, y1]: readonly [number, number], [x2, y2]: readonly [number, number]) =>
    `<line class="${name}" x1="${x1.toFixed(1)}" y1="${y1}" x2="${x2.toFixed(1)}" y2="${y2}"/>`;
  const center = top + 1 + (PANEL.bar - 6) / 2;
  return [
    line("whisker", [at(lowest), center], [at(highest), center]),
    box(at(lower), at(upper)),
    line("middle", [at(value), top + 1], [at(value), top + PANEL.bar - 5]),
  ].join("\n");
}

function heightOf(panel: Panel): number {
  return PANEL.title + panel.bars.length * PANEL.bar;
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
