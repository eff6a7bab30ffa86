/**
 * TLS: the connection goes on encrypted (paper section 3.1.3, PROTOCOL §4.3).
 * @module
 */
import type { Service } from "../service.ts";

/** Starts a TLS handshake in the band. */
export const tls: Service = {
  word: "TLS",
  serve(talk) {
    // What came behind the line was sent in the clear by anybody: obeying it after the handshake would obey an attacker (CVE-2011-0411).
    if (talk.unread > 0) {
      talk.refuse(554, "plaintext after TLS");
      return "closed";
    }
    talk.accept();
    return "tls";
  },
};
