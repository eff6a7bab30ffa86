/*
 * A module of PAM that does what its argument says, as no good one would: for test/support/pam.ts, which has it compiled. Declares what it
 * uses of Linux-PAM by itself, so that no headers have to be installed.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, AUTH_ERR = 7, ACCT_EXPIRED = 13, CONV = 5, USER = 2, TTY = 3, RHOST = 4 };
enum { HIDDEN = 1, SHOWN = 2, ERROR = 3, INFO = 4 };

struct message { int style; const char *text; };
struct response { char *text; int code; };
struct conversation { int (*ask)(int, const struct message **, struct response **, void *); void *data; };

extern int pam_get_item(const void *handle, int item, const void **value);
extern int pam_set_item(void *handle, int item, const void *value);
extern int pam_fail_delay(void *handle, unsigned microseconds);

/* Says several things in one call; the answers, or NULL when nobody talks to us. */
static struct response *say(void *handle, const struct message *all, int count) {
  const struct conversation *conversation = NULL;
  const struct message **pointers = calloc(count, sizeof *pointers);
  struct response *answers = NULL;
  for (int at = 0; at < count; at++) pointers[at] = &all[at];
  pam_get_item(handle, CONV, (const void **)&conversation);
  int status = conversation->ask(count, pointers, &answers, conversation->data);
  free(pointers);
  return status == SUCCESS ? answers : NULL;
}

static struct response *say_one(void *handle, int style, const char *text) {
  struct message one = {style, text};
  return say(handle, &one, 1);
}

static int is(const struct response *answers, int at, const char *expected) {
  return answers && answers[at].text && strcmp(answers[at].text, expected) == 0;
}

int pam_sm_authenticate(void *handle, int flags, int argc, const char **argv) {
  (void)flags;
  const char *what = argc > 0 ? argv[0] : "";
  const char *more = argc > 1 ? argv[1] : "";
  char text[256];
  if (strcmp(what, "batch") == 0) {
    struct message all[] = {{INFO, "Two things"}, {SHOWN, "Token: "}, {ERROR, "Careful"}, {HIDDEN, "PIN: "}};
    struct response *answers = say(handle, all, 4);
    return is(answers, 1, "1234") && is(answers, 3, "5678") && !answers[0].text && !answers[2].text ? SUCCESS : AUTH_ERR;
  }
  if (strcmp(what, "questions") == 0) {
    for (int at = atoi(more); at > 0; at--)
      if (!say_one(handle, SHOWN, "Again: ")) return AUTH_ERR;
    return SUCCESS;
  }
  if (strcmp(what, "tell") == 0) {
    for (int at = atoi(more); at > 0; at--) say_one(handle, INFO, "Once more");
    return SUCCESS;
  }
  if (strcmp(what, "long") == 0) {
    size_t length = 1024 * 1024;
    char *question = malloc(length + 1);
    memset(question, '\033', length);
    question[length] = 0;
    return is(say_one(handle, HIDDEN, question), 0, "secret") ? SUCCESS : AUTH_ERR;
  }
  if (strcmp(what, "hang") == 0) {
    int child = fork(); /* as pam_exec would */
    if (child != 0) {
      snprintf(text, sizeof text, "%d %d", getpid(), child);
      say_one(handle, INFO, text);
    }
    for (;;) pause();
  }
  if (strcmp(what, "pid") == 0) {
    snprintf(text, sizeof text, "%d: ", getpid());
    return say_one(handle, SHOWN, text) ? SUCCESS : AUTH_ERR;
  }
  if (strcmp(what, "crash") == 0) {
    if (is(say_one(handle, HIDDEN, "Password: "), 0, "secret")) raise(SIGSEGV);
    return AUTH_ERR;
  }
  if (strcmp(what, "garbage") == 0) {
    /* What the server hears, said by a module that knows where. */
    dprintf(3, "%s\n", more);
    return AUTH_ERR;
  }
  if (strcmp(what, "style") == 0) return say_one(handle, 99, "What is this?") ? SUCCESS : AUTH_ERR;
  if (strcmp(what, "rename") == 0) return pam_set_item(handle, USER, more);
  if (strcmp(what, "slow") == 0) {
    pam_fail_delay(handle, 9000000);
    say_one(handle, HIDDEN, "Password: ");
    return AUTH_ERR;
  }
  if (strcmp(what, "items") == 0) {
    const char *host = NULL, *terminal = NULL;
    pam_get_item(handle, RHOST, (const void **)&host);
    pam_get_item(handle, TTY, (const void **)&terminal);
    snprintf(text, sizeof text, "%s %s", host ? host : "-", terminal ? terminal : "-");
    say_one(handle, INFO, text);
    return SUCCESS;
  }
  return AUTH_ERR;
}

int pam_sm_acct_mgmt(void *handle, int flags, int argc, const char **argv) {
  (void)flags;
  const char *what = argc > 0 ? argv[0] : "";
  if (strcmp(what, "soon") == 0) say_one(handle, INFO, "Your account ends soon");
  if (strcmp(what, "expired") != 0) return SUCCESS;
  say_one(handle, ERROR, "Your account has ended");
  return ACCT_EXPIRED;
}

int pam_sm_setcred(void *handle, int flags, int argc, const char **argv) {
  (void)handle, (void)flags, (void)argc, (void)argv;
  return SUCCESS;
}
