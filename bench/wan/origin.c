/*
 * What every way of the WAN benchmark leads to: it answers a line with as many octets as the line says, in C so that it costs next to
 * nothing. Knows nothing of the way.
 *
 *   origin PORT               serves on all addresses until it is ended
 *
 *   "1000000\n"     a million octets; then it waits for the next line
 *   "echo\n"        from here on every octet comes back
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* What is handed to one write. */
#define CHUNK (64 * 1024)
#define LINE_MAX_BYTES 32

static char junk[CHUNK];

/* False when the peer is gone. */
static int send_all(int fd, const char *from, uint64_t size) {
  while (size > 0) {
    ssize_t n = send(fd, from, size, MSG_NOSIGNAL);
    if (n <= 0) return 0;
    from += n, size -= (uint64_t)n;
  }
  return 1;
}

/* False when the peer is gone, or says more than a line may be. */
static int read_line(int fd, char *into) {
  for (int size = 0; size < LINE_MAX_BYTES; size++) {
    if (recv(fd, into + size, 1, 0) <= 0) return 0;
    if (into[size] == '\n') {
      into[size] = 0;
      return 1;
    }
  }
  return 0;
}

static void *conversation(void *argument) {
  int fd = (int)(intptr_t)argument, gone = 0;
  char line[LINE_MAX_BYTES], byte;
  while (!gone && read_line(fd, line)) {
    if (!strcmp(line, "echo")) {
      while (recv(fd, &byte, 1, 0) > 0 && send_all(fd, &byte, 1)) continue;
      break;
    }
    for (uint64_t left = strtoull(line, NULL, 10); left > 0 && !gone;) {
      uint64_t size = left < CHUNK ? left : CHUNK;
      gone = !send_all(fd, junk, size);
      left -= size;
    }
  }
  close(fd);
  return NULL;
}

int main(int count, char **words) {
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  uint16_t port = count == 2 ? (uint16_t)atoi(words[1]) : 0;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = INADDR_ANY};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (port == 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128)) {
    perror("origin: cannot listen");
    return 1;
  }
  memset(junk, 'x', sizeof junk);
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) continue;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    pthread_t thread;
    if (pthread_create(&thread, NULL, conversation, (void *)(intptr_t)fd)) {
      close(fd);
    } else {
      pthread_detach(thread);
    }
  }
}
