/**
 * What programs that took our port for another one's say first.
 * @module
 */

/** What a program of another protocol says to us. */
export interface OtherProtocol {
  readonly name: string;
  /** What it says first, one character an octet. */
  readonly octets: string;
  /** What comes back at most. */
  readonly answer: RegExp;
  /** The connection may be cut: the kernel does so to one that is closed before all of its octets were read, and OpenSSL stops reading. */
  readonly cut?: boolean;
}

/** The first octets of other protocols, and what comes back at most. */
export const PROTOCOLS: readonly OtherProtocol[] = [
  {
    name: "an HTTP request",
    octets: "GET /secret-path HTTP/1.1\r\nHost: example.org\r\nUser-Agent: curl\r\n\r\n",
    answer: /^- 500 (?!.*secret-path)[ -~]+\r\n$/,
  },
  {
    name: "an HTTP request whose body holds requests of ours",
    octets: "POST / HTTP/1.1\r\nContent-Length: 12\r\n\r\necho\r\nLIST\r\n",
    answer: /^- 500 [ -~]+\r\n$/,
  },
  {
    name: "a browser's HTTP/2",
    octets: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    answer: /^- 500 [ -~]+\r\n$/,
  },
  { name: "SMTP", octets: "EHLO example.org\r\nSTARTTLS\r\n", answer: /^- 500 (?!.*example)[ -~]+\r\n$/ },
  { name: "Redis", octets: "*1\r\n$4\r\nPING\r\n", answer: /^- 501 [ -~]+\r\n$/ },
  { name: "SSH", octets: "SSH-2.0-OpenSSH_9.9 <script>\r\n", answer: /^- 500 (?!.*script)[ -~]+\r\n$/ },
  {
    name: "SMB, with many NULs",
    octets: `\0\0\0\x54\xffSMB${"\0".repeat(100)}\x02NT LM 0.12\0${"\0".repeat(1_200)}`,
    answer: /^- 500 [ -~]+\r\n$/,
  },
  {
    // A record that says it is a handshake, and what is none: OpenSSL's alert, and nothing of ours.
    name: "a TLS record with nonsense in it",
    octets: `\x16\x03\x01\x00\x20${"echo\r\nLIST\r\n".repeat(5)}`,
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what an alert is made of.
    answer: /^(?:\x15\x03[\0-\x04]\0\x02..)?$/s,
    cut: true,
  },
];
