/** The application protocol both ends insist on, so that no other TLS server can be made to answer us (ALPACA; PROTOCOL §2.2). @module */

/** As it is said in TLS and in DNS. */
export const ALPN = "fived/1";
