/*
 * A wide-area link in one process, for kernels without netem: two network namespaces of its own, and between them packets that wait as they
 * would on the way. Knows nothing of what it carries.
 *
 *   link RTT_MS SD_MS TAU_MS DOWN_MBIT UP_MBIT DOWN_QUEUE UP_QUEUE SEED
 *
 * says "ready", and from then on answers each line of standard input with one of its own, and ends with standard input:
 *
 *   late      -> how late the latest packet since the last question was delivered, in microseconds
 *   forget PORT -> a number; packets of TCP connections with this port are lost from now on
 *   swallow on, swallow off -> 1, 0: whether all packets are lost from now on, which nobody is told
 *   count     -> packets and drops of both directions since the beginning: "down=N dropped=N up=N dropped=N"
 *
 * The namespaces have no names: they are this process's descriptors 10 (the client's end) and 11 (the server's), to be entered by
 * `nsenter --net=/proc/PID/fd/10`, with a device `wan` in each. The kernel removes them when this process and whoever was started in them are
 * gone, so nothing is left behind however this ends.
 *
 *     tail-drop queue, drained at the link's rate ─► half the round trip, with jitter ─► the other end
 *
 * The queue is drained in virtual time, so the rate is exact whatever the scheduler does. Jitter is an Ornstein-Uhlenbeck process (Gaussian, with
 * a correlation time): packets far apart meet independent delays, packets of one train nearly the same, so that keeping their order costs
 * no bias. Jitter independent for each packet would push every train to the maximum of its draws.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define CLIENT_END 10
#define SERVER_END 11
/* Packets on the way in one direction, a power of two: 50 Mbit/s for a second are 4,200. */
#define RING 16384
#define PACKET_MAX 2048
/* Packets read from one end before the other has its turn. */
#define BATCH 64
#define NEVER UINT64_MAX

struct packet {
  uint64_t drained, due;
  int length;
  unsigned char bytes[PACKET_MAX];
};

struct direction {
  double mean_ns, sd_ns, tau_ns, bits_per_second;
  unsigned queue_max;
  /* Jitter, in standard deviations, and when it was drawn. */
  double jitter;
  uint64_t jitter_at;
  /* When the queue is empty, and when the last packet is due: no packet overtakes another. */
  uint64_t empty_at, last_due;
  struct packet *ring;
  /* The packets on the way are head to tail; those from `queued` on are still in the queue. */
  unsigned head, queued, tail;
  uint64_t carried, dropped;
};

static struct direction down, up;
static uint64_t latest;
/* Everything is lost, and nobody is told. */
static int swallowing;
/* As a translator that has forgotten them: TCP connections with these ports of the client, the latest ones. */
static unsigned short forgotten[64];
static unsigned forgotten_count;
static uint64_t random_state[2] = {0x9E3779B97F4A7C15u, 0xD1B54A32D192ED03u};

static void fail(const char *act) {
  fprintf(stderr, "link: cannot %s: %s\n", act, strerror(errno));
  exit(1);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* xorshift128+, to (0, 1]. */
static double uniform(void) {
  uint64_t a = random_state[0], b = random_state[1];
  random_state[0] = b;
  a ^= a << 23;
  random_state[1] = a ^ b ^ (a >> 17) ^ (b >> 26);
  return (double)(((random_state[1] + b) >> 11) + 1) / 9007199254740993.0;
}

static double gaussian(void) { return sqrt(-2 * log(uniform())) * cos(2 * M_PI * uniform()); }

/* A delay for a packet that leaves now; never below 3.5 standard deviations, nor below nothing. */
static double delay_ns(struct direction *way, uint64_t now) {
  if (way->sd_ns <= 0) return way->mean_ns;
  double kept = way->tau_ns > 0 ? exp(-(double)(now - way->jitter_at) / way->tau_ns) : 0;
  way->jitter = way->jitter * kept + sqrt(1 - kept * kept) * gaussian();
  way->jitter_at = now;
  double least = fmax(0, way->mean_ns - 3.5 * way->sd_ns);
  return fmax(least, way->mean_ns + way->sd_ns * way->jitter);
}

static int is_forgotten(const unsigned char *ip, int length) {
  int at = (ip[0] & 15) * 4;
  if (length < at + 4 || ip[0] >> 4 != 4 || ip[9] != IPPROTO_TCP) return 0;
  for (unsigned i = 0; i < 64; i++)
    for (int port = 0; port < 4; port += 2)
      if (forgotten[i] != 0 && forgotten[i] == (ip[at + port] << 8 | ip[at + port + 1])) return 1;
  return 0;
}

static void take(struct direction *way, const unsigned char *bytes, int length) {
  if (swallowing || is_forgotten(bytes, length)) {
    way->dropped++;
    return;
  }
  uint64_t now = now_ns();
  while (way->queued != way->tail && way->ring[way->queued & (RING - 1)].drained <= now) way->queued++;
  if (way->tail - way->queued >= way->queue_max || way->tail - way->head >= RING) {
    way->dropped++;
    return;
  }
  uint64_t begins = now > way->empty_at ? now : way->empty_at;
  uint64_t drained = begins + (uint64_t)(length * 8e9 / way->bits_per_second);
  uint64_t due = drained + (uint64_t)delay_ns(way, now);
  if (due < way->last_due) due = way->last_due;
  way->empty_at = drained;
  way->last_due = due;
  struct packet *packet = &way->ring[way->tail & (RING - 1)];
  packet->drained = drained, packet->due = due, packet->length = length;
  memcpy(packet->bytes, bytes, (size_t)length);
  way->tail++;
}

/* Delivers what is due; returns when the next packet is. */
static uint64_t deliver(struct direction *way, int to) {
  while (way->head != way->tail) {
    struct packet *packet = &way->ring[way->head & (RING - 1)];
    uint64_t now = now_ns();
    if (packet->due > now) return packet->due;
    if (write(to, packet->bytes, (size_t)packet->length) == packet->length) way->carried++;
    if (now - packet->due > latest) latest = now - packet->due;
    if (way->queued == way->head) way->queued++;
    way->head++;
  }
  return NEVER;
}

/* A namespace of its own, or that of another link, kept as descriptor `end`, and a device in it. */
static int open_end(int end, const char *beside, const char *name) {
  if (beside == NULL && unshare(CLONE_NEWNET)) fail("make a network namespace");
  int space = open(beside == NULL ? "/proc/self/ns/net" : beside, O_RDONLY);
  if (beside != NULL && (space < 0 || setns(space, CLONE_NEWNET))) fail("enter a network namespace");
  if (space < 0 || dup2(space, end) < 0) fail("keep the namespace");
  close(space);
  int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (device < 0) fail("open /dev/net/tun");
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI, .ifr_name = ""};
  snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
  if (ioctl(device, TUNSETIFF, &request)) fail("make a TUN device");
  return device;
}

static void prepare(struct direction *way, char **of, const char *mbit, const char *queue) {
  /* Two directions, each with half the delay: their deviations add up as squares. */
  way->mean_ns = atof(of[1]) * 1e6 / 2;
  way->sd_ns = atof(of[2]) * 1e6 / M_SQRT2;
  way->tau_ns = atof(of[3]) * 1e6;
  way->bits_per_second = atof(mbit) * 1e6;
  way->queue_max = (unsigned)atoi(queue);
  way->ring = mmap(NULL, sizeof(struct packet) * RING, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (way->ring == MAP_FAILED) fail("get memory");
}

/* Answers one question; false when there will be no more. Questions are shorter than a pipe's atomic write, so each read is whole ones. */
static int answer(void) {
  char line[256];
  ssize_t n = read(STDIN_FILENO, line, sizeof line - 1);
  if (n <= 0) return 0;
  line[n] = 0;
  if (!strncmp(line, "late", 4)) {
    printf("%.1f\n", (double)latest / 1e3);
    latest = 0;
  } else if (!strncmp(line, "swallow", 7)) {
    swallowing = !strncmp(line + 7, " on", 3);
    printf("%d\n", swallowing);
  } else if (!strncmp(line, "forget ", 7)) {
    forgotten[forgotten_count++ % 64] = (unsigned short)atoi(line + 7);
    printf("%u\n", forgotten_count);
  } else {
    printf("down=%llu dropped=%llu up=%llu dropped=%llu\n", (unsigned long long)down.carried,
           (unsigned long long)down.dropped, (unsigned long long)up.carried, (unsigned long long)up.dropped);
  }
  return fflush(stdout) == 0;
}

int main(int count, char **words) {
  if (count != 9 && count != 12) {
    fprintf(stderr, "usage: link RTT_MS SD_MS TAU_MS DOWN_MBIT UP_MBIT DOWN_QUEUE UP_QUEUE SEED [DEVICE CLIENT_NS SERVER_NS]\n");
    return 2;
  }
  prepare(&down, words, words[4], words[6]);
  prepare(&up, words, words[5], words[7]);
  random_state[0] ^= strtoull(words[8], NULL, 10);
  for (int i = 0; i < 16; i++) uniform();
  const char *name = count == 12 ? words[9] : "wan";
  int client = open_end(CLIENT_END, count == 12 ? words[10] : NULL, name);
  int server = open_end(SERVER_END, count == 12 ? words[11] : NULL, name);

  /* On time, if the machine lets us; the answers to "late" tell whether it did. */
  prctl(PR_SET_TIMERSLACK, 1);
  struct sched_param priority = {.sched_priority = 20};
  sched_setscheduler(0, SCHED_FIFO, &priority);
  mlockall(MCL_CURRENT);
  signal(SIGPIPE, SIG_IGN);
  printf("ready\n");
  fflush(stdout);

  unsigned char bytes[PACKET_MAX];
  struct pollfd ends[] = {{server, POLLIN, 0}, {client, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
  for (;;) {
    uint64_t of_down = deliver(&down, client), of_up = deliver(&up, server);
    uint64_t next = of_down < of_up ? of_down : of_up, now = now_ns(), wait = next > now ? next - now : 0;
    struct timespec timeout = {.tv_sec = (time_t)(wait / 1000000000u), .tv_nsec = (long)(wait % 1000000000u)};
    if (ppoll(ends, 3, next == NEVER ? NULL : &timeout, NULL) <= 0) continue;
    ssize_t n;
    for (int i = 0; ends[0].revents && i < BATCH && (n = read(server, bytes, sizeof bytes)) > 0; i++)
      take(&down, bytes, (int)n);
    for (int i = 0; ends[1].revents && i < BATCH && (n = read(client, bytes, sizeof bytes)) > 0; i++)
      take(&up, bytes, (int)n);
    if (ends[2].revents && !answer()) return 0;
  }
}
