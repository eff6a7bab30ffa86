/**
 * The door of `wire/`: bytes to values and back, for lines and frames. Imports nothing and knows no platform.
 * @module
 */
export {
  assertNever,
  Code,
  type CodeName,
  codeName,
  encodeSequenced,
  encodeUnsequenced,
  type Frame,
  type FrameError,
  FrameReader,
  FrameType,
  HEADER_BYTES,
  HELD_RANGES_MAX,
  PAYLOAD_BYTES_MAX,
  PAYLOAD_BYTES_MIN,
  type Range,
  REQUEST_BYTES_MAX,
  readDataHeader,
  type SequencedContent,
  type SequencedFrame,
  Setting,
  type UnsequencedFrame,
  writeDataHeader,
} from "./frame.ts";
export {
  encodeLine,
  isServiceName,
  LINE_BYTES_MAX,
  type Line,
  LineReader,
  NAME_BYTES_MAX,
  parseReply,
  parseRequest,
  REPLY_BYTES_MAX,
  type Reply,
  type Request,
} from "./line.ts";
