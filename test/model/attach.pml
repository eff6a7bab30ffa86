/*
 * attach.pml - fived session resume ("ATTACH"), both directions at once.
 *
 * Client and server each keep an append-only log of N sequenced frames for the
 * other side (direction 0: client->server, direction 1: server->client).  A
 * frame carries its log position (seq).  Up to NC connections are ever opened;
 * any of them may be cut by the network at any moment, which loses everything
 * in flight in both directions, or left behind by the client (roaming), in
 * which case what is in flight may still arrive.  The client may start a second
 * and third ATTACH while an earlier one is unanswered or live; each ATTACH is
 * in mode REPLACE (roam) or ADD (bond: both connections carry the one session).
 *
 * Checked: (1) each side delivers 0,1,..,N-1, each exactly once, in order;
 *          (2) what an honest peer says it received is never ahead of what was
 *              sent, and nothing still needed has been trimmed;
 *          (3) the client always holds a ticket that the server accepts;
 *          (4) no deadlock: when nothing more can happen, everything has been
 *              delivered and acknowledged, or all NC connections are used up.
 *
 * Switches that put a known mistake in (each must make spin find an error):
 *   -DNOSEQ      receiver counts frames instead of reading seq (implicit
 *                sequence numbers, "bytes received so far" only)
 *   -DNOSEQ -DNOADD   the same without bonding (REPLACE only)
 *   -DNOSEQ -DNOADD -DNOFENCE   the server goes on reading the old connection
 * (-DNOSEQ -DNOADD -DFREEZE is sound: count only, but the client drops every
 *  old connection BEFORE it states its count, the server likewise)
 *   -DEAGERTRIM  sender forgets a frame when it is written, not when acked
 *   -DFRESHPEND  a new next-ticket for every accepted ATTACH, instead of the
 *                same pending one until the client has confirmed it
 *   -DNOGRACE    the old ticket is refused as soon as an ATTACH is accepted
 *   -DNOREACK   acks lost with one connection are not repeated on another
 *   -DSTRICTRX   ATTACH whose count is below what is already acked is refused
 *                (wrong: it happens honestly when an ACK overtakes on another
 *                connection)
 *
 * Check (25 s, 1 GB):
 *   spin -DN=1 -DNC=2 -DCUTS=2 -a attach.pml
 *   gcc -O2 -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -o pan pan.c && ./pan -m200000
 * Output (spin 6.5.2):
 *   State-vector 164 byte, depth reached 71, errors: 0
 *     6619658 states, stored   39606957 transitions   951.377 total actual memory usage
 * All runs, sound ones and planted mistakes: attach.test.ts.
 * A counterexample is read with: spin -p -g -t -D... attach.pml
 *
 * Limits of the model: 1-3 frames a side, 2 connections (3 only by bit-state),
 * no flow control, no crash of an endpoint, no cryptography; requeue and
 * attach are atomic steps, as they must be in the implementation (one turn of
 * the event loop, no await in between).
 */
#ifndef N
#define N 2
#endif
#ifndef N0
#define N0 N                            /* frames client->server */
#endif
#ifndef N1
#define N1 N                            /* frames server->client */
#endif
#define CNT(d) ((d) == 0 -> N0 : N1)
#ifndef NC
#define NC 3
#endif
#ifndef QL
#define QL 2
#endif
#ifndef CUTS
#define CUTS 2
#endif
#define NONE 15

mtype = { ATT, OKAY, DENY, DAT, ACKF };

/* kind, a, b, c : ATT(gen, rx, mode)  OKAY(nextgen, rx, mode)
                   DAT(seq, label, -)  ACKF(rx, gen, -)          */
chan up[NC] = [QL] of { mtype, byte, byte, byte };
chan dn[NC] = [QL] of { mtype, byte, byte, byte };

bool cUp[NC], cTry[NC], cGone[NC];      /* client's view of connection i */
bool sUp[NC], sGone[NC];                /* server's view                 */
bool cut[NC];                           /* network has cut it            */
byte opened = 0;                        /* connections opened so far     */
byte cuts = 0;

byte base[2];                           /* sender: everything below is acked   */
byte sentTo[2];                         /* sender: highest seq ever sent + 1   */
byte onCon[2*N];                        /* [d*N+f] connection it went out on   */
byte rx[2];                             /* receiver: contiguous count          */
bool got[2*N];                          /* receiver: held out of order         */
byte told[2];                           /* receiver: last count it has acked   */
byte delivered[2];                      /* handed to the application           */

bool calm = false;                      /* no more cuts, roaming, new connections */
byte cGen = 0, sCur = 0, sPend = NONE, minted = 0;

inline flush(ch) { do :: len(ch) > 0 -> ch?_,_,_,_ :: else -> break od }

/* frames of direction d that went out on connection c must be sent again,
   and so must the ack for the other direction that may have gone with it */
inline requeue(d, c) {
#ifndef NOREACK
  told[1-(d)] = NONE;
#endif
  k = 0;
  do
  :: k < CNT(d) -> if :: (k >= base[d] && onCon[(d)*N+k] == c) -> onCon[(d)*N+k] = NONE :: else fi; k++
  :: else -> break
  od;
  k = 0
}
inline ackto(d, n) {
  assert(n <= sentTo[d]);               /* (2) never ahead of what was sent */
  if :: n > base[d] -> base[d] = n :: else fi
}
/* receive frame with position f and true content lab */
inline accept(d, f, lab) {
#ifdef NOSEQ
  assert(lab == delivered[d]);
  delivered[d]++; rx[d]++
#else
  if
  :: (f >= rx[d] && !got[(d)*N+f]) ->
     got[(d)*N+f] = true;
     do
     :: (rx[d] < CNT(d) && got[(d)*N+rx[d]]) -> assert(rx[d] == delivered[d]); delivered[d]++; rx[d]++
     :: else -> break
     od;
     skip
  :: else                               /* duplicate: drop */
  fi
#endif
}
#define W(d,x) (x < CNT(d) && x >= base[d] && onCon[(d)*N+x] == NONE)
#if N == 1
#define TOSEND(d) W(d,0)
#elif N == 2
#define TOSEND(d) (W(d,0) || W(d,1))
#else
#define TOSEND(d) (W(d,0) || W(d,1) || W(d,2))
#endif
/* lowest frame of direction d waiting to be sent, into f (N if none) */
inline lowest(d) {
  f = base[d];
  do
  :: (f < CNT(d) && onCon[(d)*N+f] != NONE) -> f++
  :: else -> break
  od;
  skip
}
inline sent(d, c) {
  onCon[(d)*N+f] = c;
  if :: f + 1 > sentTo[d] -> sentTo[d] = f + 1 :: else fi;
#ifdef EAGERTRIM
  if :: f == base[d] -> base[d] = f + 1 :: else fi;
#endif
}

proctype Client() {
  byte i, f, k, a, b, c;
end:
  do
  /* open a connection and ask to attach (also while others live or pend) */
  :: atomic { !calm && opened < NC ->
#ifdef FREEZE
       i = 0;
       do :: i < NC -> if :: (cUp[i] || cTry[i]) -> cUp[i] = false; cTry[i] = false; cGone[i] = true; requeue(0, i) :: else fi; i++
          :: else -> break od;
#endif
       i = opened; opened++; cTry[i] = true;
       if :: up[i]!ATT(cGen, rx[1], 0)
#ifndef NOADD
          :: up[i]!ATT(cGen, rx[1], 1)
#endif
       fi; i = 0 }
  /* roam: leave a connection; what it carries may still arrive */
  :: atomic { !calm && opened > 0 ->
       select(i : 0 .. NC-1);
       if :: (i < opened && (cUp[i] || cTry[i])) -> cUp[i] = false; cTry[i] = false; cGone[i] = true; requeue(0, i)
          :: else fi; i = 0 }
  /* notice that a connection is dead or closed by the server */
  :: d_step { ((cUp[0]||cTry[0]) && !cGone[0] && (cut[0] || (sGone[0] && len(dn[0])==0))) -> cUp[0]=false; cTry[0]=false; cGone[0]=true; requeue(0,0) }
#if NC > 1
  :: d_step { ((cUp[1]||cTry[1]) && !cGone[1] && (cut[1] || (sGone[1] && len(dn[1])==0))) -> cUp[1]=false; cTry[1]=false; cGone[1]=true; requeue(0,1) }
#endif
#if NC > 2
  :: d_step { ((cUp[2]||cTry[2]) && !cGone[2] && (cut[2] || (sGone[2] && len(dn[2])==0))) -> cUp[2]=false; cTry[2]=false; cGone[2]=true; requeue(0,2) }
#endif
  /* receive */
#define CRECV(I) \
  :: d_step { (!cGone[I] && len(dn[I]) > 0 && dn[I]?[OKAY,a,b,c]) -> dn[I]?OKAY(a,b,c); \
       if :: a > cGen -> cGen = a :: else fi; \
       cTry[I] = false; cUp[I] = true; ackto(0, b); \
       if :: c == 0 -> k = 0; i = 0; \
             do :: i < NC -> if :: (i != I && (cUp[i] || cTry[i])) -> cUp[i] = false; cTry[i] = false; cGone[i] = true; requeue(0, i) :: else fi; i++ \
                :: else -> break od; \
             i = 0 \
          :: else fi; \
       assert(cGen == sCur || cGen == sPend); a=0; b=0; c=0 } \
  :: d_step { (!cGone[I] && len(dn[I]) > 0 && dn[I]?[DENY,a,b,c]) -> dn[I]?DENY(a,b,c); cTry[I] = false; cUp[I]=false; cGone[I] = true; a=0; b=0; c=0 } \
  :: d_step { (cUp[I] && len(dn[I]) > 0 && dn[I]?[DAT,a,b,c]) -> dn[I]?DAT(a,b,c); accept(1, a, b); a=0; b=0; c=0 } \
  :: d_step { (cUp[I] && len(dn[I]) > 0 && dn[I]?[ACKF,a,b,c]) -> dn[I]?ACKF(a,b,c); ackto(0, a); a=0; b=0; c=0 }
  CRECV(0)
#if NC > 1
  CRECV(1)
#endif
#if NC > 2
  CRECV(2)
#endif
  /* send a frame or an ack on any live connection */
#define CSEND(I) \
  :: d_step { cUp[I] && len(up[I]) < QL && TOSEND(0) -> lowest(0); \
       if :: !cut[I] -> up[I]!DAT(f, f, 0) :: else fi; sent(0, I); f = 0 } \
  :: d_step { cUp[I] && len(up[I]) < QL && (rx[1] != told[1] || (sPend != NONE && cGen == sPend)) -> \
       if :: !cut[I] -> up[I]!ACKF(rx[1], cGen, 0) :: else fi; told[1] = rx[1] }
  CSEND(0)
#if NC > 1
  CSEND(1)
#endif
#if NC > 2
  CSEND(2)
#endif
  od
}

/* the server accepts or refuses an ATTACH(gen, cnt, mode) seen on connection I */
inline attach(I, gen, cnt, mode) {
  if
#ifdef NOGRACE
  :: gen != sCur -> dn[I]!DENY(0,0,0); sGone[I] = true
#else
  :: (gen != sCur && gen != sPend) -> dn[I]!DENY(0,0,0); sGone[I] = true
#endif
#ifdef STRICTRX
  :: (cnt < base[1]) -> assert(false); dn[I]!DENY(0,0,0); sGone[I] = true
#endif
  :: else ->
     ackto(1, cnt);                     /* max(acked, claimed) */
     /* tickets: using the pending one confirms it; then the next is minted */
     if :: (gen == sPend && sPend != NONE) -> sCur = sPend; sPend = NONE :: else fi;
#ifdef FRESHPEND
     minted++; sPend = minted;
#else
     if :: sPend == NONE -> minted++; sPend = minted :: else fi;
#endif
#ifdef NOGRACE
     sCur = sPend; 
#endif
     if
#ifdef NOFENCE
     :: mode == 9 ->
#else
     :: mode == 0 ->                    /* REPLACE: fence every other connection */
#endif
        j = 0;
        do
        :: j < NC -> if :: (j != I && sUp[j]) -> sUp[j] = false; sGone[j] = true; requeue(1, j) :: else fi; j++
        :: else -> break
        od;
        j = 0
     :: else
     fi;
     sUp[I] = true;
     dn[I]!OKAY(sPend, rx[0], mode)
  fi
}

proctype Server() {
  byte f, k, j, a, b, c;
end:
  do
#define SRECV(I) \
  :: d_step { (!sGone[I] && !sUp[I] && len(up[I]) > 0 && up[I]?[ATT,a,b,c] && len(dn[I]) < QL) -> up[I]?ATT(a,b,c); attach(I,a,b,c); a=0; b=0; c=0 } \
  :: d_step { (sUp[I] && len(up[I]) > 0 && up[I]?[DAT,a,b,c]) -> up[I]?DAT(a,b,c); accept(0, a, b); a=0; b=0; c=0 } \
  :: d_step { (sUp[I] && len(up[I]) > 0 && up[I]?[ACKF,a,b,c]) -> up[I]?ACKF(a,b,c); ackto(1, a); \
       if :: (b == sPend && sPend != NONE) -> sCur = sPend; sPend = NONE :: else fi; a=0; b=0; c=0 } \
  :: d_step { (sUp[I] && (cut[I] || (cGone[I] && len(up[I]) == 0))) -> sUp[I] = false; sGone[I] = true; requeue(1, I) } \
  :: d_step { sUp[I] && len(dn[I]) < QL && TOSEND(1) -> lowest(1); \
       if :: !cut[I] -> dn[I]!DAT(f, f, 0) :: else fi; sent(1, I); f = 0 } \
  :: d_step { sUp[I] && len(dn[I]) < QL && rx[0] != told[0] -> \
       if :: !cut[I] -> dn[I]!ACKF(rx[0], 0, 0) :: else fi; told[0] = rx[0] }
  SRECV(0)
#if NC > 1
  SRECV(1)
#endif
#if NC > 2
  SRECV(2)
#endif
  od
}

proctype Net() {
  byte n;
end:
  do
  :: calm = true; break
  :: atomic { cuts < CUTS && opened > 0 ->
       select(n : 0 .. NC-1);
       if
       :: (n < opened && !cut[n]) ->
          cut[n] = true; cuts++;
          if :: flush(up[n]) :: skip fi;
          if :: flush(dn[n]) :: skip fi
       :: else
       fi; n = 0 }
  od
}

/* (3) no lock-out: the ticket that the client holds is one the server takes */
proctype Ticket() {
end:
  atomic { !(cGen == sCur || cGen == sPend) -> assert(false) }
}

#define ALL (delivered[0]==N0 && delivered[1]==N1 && base[0]==N0 && base[1]==N1)
#define LIVE(I) (cUp[I] && sUp[I] && !cut[I])

init {
  byte z;
  d_step { z = 0; do :: z < 2*N -> onCon[z] = NONE; z++ :: else -> z = 0; break od }
  atomic { run Client(); run Server(); run Net(); run Ticket() }
  timeout;
#ifdef REACH                            /* sanity: this MUST fail */
  assert(!(ALL && cuts == CUTS && opened == NC));
#endif
  /* (4) quiet: all delivered and acked, or no connection left at all */
#if NC == 1
  assert(ALL || !LIVE(0))
#elif NC == 2
  assert(ALL || !(LIVE(0) || LIVE(1)))
#else
  assert(ALL || !(LIVE(0) || LIVE(1) || LIVE(2)))
#endif
}
