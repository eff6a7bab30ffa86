/*
 * The two ends of every measurement: what sends, takes and echoes bytes, in C so that they cost next to nothing beside the tunnel between
 * them. Knows nothing of any tunnel: it is given ports on 127.0.0.1 and answers with `name=value` pairs on one line.
 *
 *   load serve                           back ends on free ports; says "bulk=PORT echo=PORT", serves until its parent is gone
 *   load bulk PORT down|up STREAMS BYTES one transfer of BYTES in all       -> seconds bytes
 *   load flood PORT STREAMS SECONDS      downloads that never finish        -> bytes
 *   load rate PORT CLIENTS SECONDS       connect, one octet echoed, close   -> opened failed seconds
 *   load echo PORT SECONDS               one octet there and back, a pause  -> count p50 p99 max (seconds)
 *   load cpu PID...                      user + system time so far          -> PID=nanoseconds
 *
 * A bulk conversation begins with nine octets: 'd' or 'u' and a count. 'd': the back end sends that many octets and ends. 'u': it takes
 * that many and answers with one octet, so that the clock stops when the last octet has arrived and not when it was handed to the kernel.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* What is handed to one write or taken by one read. */
#define CHUNK (256 * 1024)
/* A conversation that makes no progress for so long is counted as failed: a tunnel that stalls must not stall the bench. */
#define STALL_SECONDS 10
#define STREAMS_MAX 256
#define SAMPLES_MAX (1 << 20)
#define HEADER 9

struct stream {
  pthread_t thread;
  int fd;
  uint16_t port;
  char direction;
  uint64_t bytes;
  double deadline;
  uint64_t done, failed;
  unsigned number;
};

static char junk[CHUNK];
static pthread_barrier_t start;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const char *act) {
  fprintf(stderr, "load: cannot %s: %s\n", act, strerror(errno));
  exit(1);
}

static struct sockaddr_in loopback(uint32_t host, uint16_t port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(host)};
  return address;
}

/* Each client connection may come from its own address of 127/8: one address has too few ports for the TIME_WAITs of a fast round. */
static int dial(uint16_t port, unsigned source) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  int on = 1;
  struct timeval stall = {.tv_sec = STALL_SECONDS};
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &stall, sizeof stall);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &stall, sizeof stall);
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
  struct sockaddr_in from = loopback(INADDR_LOOPBACK + 1 + source % 64, 0), to = loopback(INADDR_LOOPBACK, port);
  if (bind(fd, (struct sockaddr *)&from, sizeof from) || connect(fd, (struct sockaddr *)&to, sizeof to)) {
    close(fd);
    return -1;
  }
  return fd;
}

static int listen_free(uint16_t *port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = loopback(INADDR_LOOPBACK, 0);
  socklen_t size = sizeof address;
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || listen(fd, 4096)) fail("listen");
  if (getsockname(fd, (struct sockaddr *)&address, &size)) fail("read the port");
  *port = ntohs(address.sin_port);
  return fd;
}

/* False when the peer is gone or stalls. */
static int send_all(int fd, const char *from, uint64_t size) {
  while (size > 0) {
    ssize_t n = send(fd, from, size, MSG_NOSIGNAL);
    if (n <= 0) return 0;
    from += n, size -= (uint64_t)n;
  }
  return 1;
}

/* Sends junk until `bytes` are gone; returns what went. */
static uint64_t pour(int fd, uint64_t bytes) {
  uint64_t left = bytes;
  while (left > 0) {
    uint64_t size = left < CHUNK ? left : CHUNK;
    if (!send_all(fd, junk, size)) break;
    left -= size;
  }
  return bytes - left;
}

/* Takes up to `bytes` octets, or until the deadline; MSG_TRUNC lets the kernel drop them where they lie, uncopied. */
static uint64_t swallow(int fd, uint64_t bytes, double deadline) {
  uint64_t got = 0;
  while (got < bytes && (deadline == 0 || now() < deadline)) {
    uint64_t left = bytes - got;
    ssize_t n = recv(fd, NULL, left < CHUNK ? left : CHUNK, MSG_TRUNC);
    if (n <= 0) break;
    got += (uint64_t)n;
  }
  return got;
}

static int read_all(int fd, char *into, size_t size) {
  while (size > 0) {
    ssize_t n = recv(fd, into, size, 0);
    if (n <= 0) return 0;
    into += n, size -= (size_t)n;
  }
  return 1;
}

/* ---- back ends ---- */

static void *bulk_conversation(void *argument) {
  int fd = (int)(intptr_t)argument;
  char header[HEADER], end;
  uint64_t bytes;
  if (read_all(fd, header, HEADER)) {
    memcpy(&bytes, header + 1, sizeof bytes);
    if (header[0] == 'd') {
      pour(fd, bytes);
    } else if (swallow(fd, bytes, 0) == bytes) {
      send_all(fd, "k", 1);
    }
    shutdown(fd, SHUT_WR);
    while (recv(fd, &end, 1, 0) > 0) continue;
  }
  close(fd);
  return NULL;
}

static void serve_bulk(int listener) {
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) continue;
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    pthread_t thread;
    if (pthread_create(&thread, NULL, bulk_conversation, (void *)(intptr_t)fd)) {
      close(fd);
    } else {
      pthread_detach(thread);
    }
  }
}

/* One thread for all: echoes are small, so a full send buffer (which would lose octets here) does not come up. */
static void serve_echo(int listener) {
  int poller = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
  epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    int ready = epoll_wait(poller, events, 256, -1);
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        int on = 1, client = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (client < 0) continue;
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        event.data.fd = client;
        epoll_ctl(poller, EPOLL_CTL_ADD, client, &event);
        continue;
      }
      char octets[4096];
      ssize_t n = recv(fd, octets, sizeof octets, 0);
      if (n <= 0 || send(fd, octets, (size_t)n, MSG_NOSIGNAL) != n) close(fd);
    }
  }
}

static void serve(void) {
  uint16_t bulk, echo;
  int bulk_listener = listen_free(&bulk), echo_listener = listen_free(&echo);
  /* Two processes: an echo must not wait behind a bulk stream on this side of the tunnel. */
  pid_t child = fork();
  if (child < 0) fail("fork");
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (child == 0) serve_echo(echo_listener);
  printf("bulk=%u echo=%u\n", bulk, echo);
  fflush(stdout);
  serve_bulk(bulk_listener);
}

/* ---- clients ---- */

static void *bulk_stream(void *argument) {
  struct stream *s = argument;
  char header[HEADER], answer;
  header[0] = s->direction;
  memcpy(header + 1, &s->bytes, sizeof s->bytes);
  pthread_barrier_wait(&start);
  if (!send_all(s->fd, header, HEADER)) return NULL;
  if (s->direction == 'd') {
    s->done = swallow(s->fd, s->bytes, s->deadline);
  } else {
    s->done = pour(s->fd, s->bytes);
    if (!read_all(s->fd, &answer, 1)) s->done = 0;
  }
  return NULL;
}

/* Opens all streams first, starts them together and says how long the slowest took. */
static double run_bulk(struct stream *streams, unsigned count, uint64_t *done) {
  pthread_barrier_init(&start, NULL, count + 1);
  for (unsigned i = 0; i < count; i++) {
    if ((streams[i].fd = dial(streams[i].port, i)) < 0) fail("connect");
    if (pthread_create(&streams[i].thread, NULL, bulk_stream, &streams[i])) fail("start a thread");
  }
  double began = now();
  pthread_barrier_wait(&start);
  *done = 0;
  for (unsigned i = 0; i < count; i++) {
    pthread_join(streams[i].thread, NULL);
    *done += streams[i].done;
  }
  double took = now() - began;
  for (unsigned i = 0; i < count; i++) close(streams[i].fd);
  return took;
}

static int bulk(uint16_t port, char direction, unsigned count, uint64_t bytes) {
  struct stream streams[STREAMS_MAX] = {0};
  uint64_t each = bytes / count, done;
  for (unsigned i = 0; i < count; i++) streams[i] = (struct stream){.port = port, .direction = direction, .bytes = each};
  double took = run_bulk(streams, count, &done);
  if (done != each * count) {
    fprintf(stderr, "load: %llu of %llu bytes arrived\n", (unsigned long long)done, (unsigned long long)(each * count));
    return 1;
  }
  printf("seconds=%.9f bytes=%llu\n", took, (unsigned long long)done);
  return 0;
}

static int flood(uint16_t port, unsigned count, double seconds) {
  struct stream streams[STREAMS_MAX] = {0};
  uint64_t done;
  double deadline = now() + seconds;
  for (unsigned i = 0; i < count; i++) {
    streams[i] = (struct stream){.port = port, .direction = 'd', .bytes = UINT64_MAX, .deadline = deadline};
  }
  double took = run_bulk(streams, count, &done);
  printf("seconds=%.9f bytes=%llu\n", took, (unsigned long long)done);
  return 0;
}

static void *rate_client(void *argument) {
  struct stream *s = argument;
  pthread_barrier_wait(&start);
  while (now() < s->deadline) {
    char octet = 'x';
    int fd = dial(s->port, s->number++);
    if (fd >= 0 && send_all(fd, &octet, 1) && read_all(fd, &octet, 1)) {
      s->done++;
    } else {
      s->failed++;
    }
    if (fd >= 0) close(fd);
  }
  return NULL;
}

static int rate(uint16_t port, unsigned count, double seconds) {
  struct stream clients[STREAMS_MAX] = {0};
  uint64_t opened = 0, failed = 0;
  pthread_barrier_init(&start, NULL, count + 1);
  double deadline = now() + seconds;
  for (unsigned i = 0; i < count; i++) {
    clients[i] = (struct stream){.port = port, .deadline = deadline, .number = i * 7};
    if (pthread_create(&clients[i].thread, NULL, rate_client, &clients[i])) fail("start a thread");
  }
  double began = now();
  pthread_barrier_wait(&start);
  for (unsigned i = 0; i < count; i++) {
    pthread_join(clients[i].thread, NULL);
    opened += clients[i].done, failed += clients[i].failed;
  }
  printf("opened=%llu failed=%llu seconds=%.9f\n", (unsigned long long)opened, (unsigned long long)failed, now() - began);
  return 0;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* A pause of 0.5 to 1.5 ms between samples: back to back they would crowd into the moments when the tunnel is quick. */
static int echo(uint16_t port, double seconds) {
  static double samples[SAMPLES_MAX];
  unsigned count = 0, noise = 1;
  char octet = 'x';
  int fd = dial(port, 0);
  if (fd < 0) fail("connect");
  /* The first goes uncounted: it waits for the tunnel to open its stream. */
  if (!send_all(fd, &octet, 1) || !read_all(fd, &octet, 1)) fail("hear the first echo");
  for (double deadline = now() + seconds; now() < deadline && count < SAMPLES_MAX;) {
    double began = now();
    if (!send_all(fd, &octet, 1) || !read_all(fd, &octet, 1)) fail("hear an echo");
    samples[count++] = now() - began;
    noise = noise * 1103515245u + 12345u;
    struct timespec pause = {.tv_nsec = 500000 + (noise >> 8) % 1000000};
    nanosleep(&pause, NULL);
  }
  close(fd);
  if (count == 0) fail("take a sample");
  qsort(samples, count, sizeof *samples, ascending);
  printf("count=%u p50=%.9f p99=%.9f max=%.9f\n", count, samples[count / 2], samples[(size_t)count * 99 / 100], samples[count - 1]);
  return 0;
}

/* The kernel's own process clock: nanoseconds, all threads, also those that have ended (which /proc/PID/task no longer shows). */
static int cpu(int count, char **pids) {
  for (int i = 0; i < count; i++) {
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(atoi(pids[i]), &clock) || clock_gettime(clock, &t)) continue; /* It has ended since it was listed. */
    printf("%s=%lld%09ld ", pids[i], (long long)t.tv_sec, t.tv_nsec);
  }
  printf("\n");
  return 0;
}

static uint16_t port_of(const char *text) { return (uint16_t)atoi(text); }

static unsigned count_of(const char *text) {
  int count = atoi(text);
  if (count < 1 || count > STREAMS_MAX) errno = EINVAL, fail("run that many at once");
  return (unsigned)count;
}

int main(int argc, char **argv) {
  const char *act = argc > 1 ? argv[1] : "";
  uint32_t noise = 1;
  for (size_t i = 0; i < sizeof junk; i++) junk[i] = (char)((noise = noise * 1664525u + 1013904223u) >> 24);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGPIPE, SIG_IGN);
  if (!strcmp(act, "serve")) serve();
  if (!strcmp(act, "bulk") && argc == 6) return bulk(port_of(argv[2]), argv[3][0], count_of(argv[4]), strtoull(argv[5], NULL, 10));
  if (!strcmp(act, "flood") && argc == 5) return flood(port_of(argv[2]), count_of(argv[3]), atof(argv[4]));
  if (!strcmp(act, "rate") && argc == 5) return rate(port_of(argv[2]), count_of(argv[3]), atof(argv[4]));
  if (!strcmp(act, "echo") && argc == 4) return echo(port_of(argv[2]), atof(argv[3]));
  if (!strcmp(act, "cpu")) return cpu(argc - 2, argv + 2);
  fprintf(stderr, "load: see the head of load.c\n");
  return 2;
}
