// Preloaded into a process whose power is to be cut (09_power_cut.py): tells a listener of each fsync and fdatasync,
// after it was done, and waits until the listener has seen what lies on the disk.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void Tell(int descriptor) {
  const char* listener = getenv("SYNC_RECORDER");
  char link[64];
  char path[PATH_MAX];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, path, sizeof(path));
  if (listener == NULL || length <= 0) return;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, listener, sizeof(address.sun_path) - 1);
  const int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  char seen;
  if (connect(connection, (struct sockaddr*)&address, sizeof(address)) == 0 &&
      send(connection, path, (size_t)length, MSG_NOSIGNAL) == length && shutdown(connection, SHUT_WR) == 0) {
    (void)!read(connection, &seen, 1);
  }
  close(connection);
}

#define RECORD(name)                                          \
  int name(int descriptor) {                                  \
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, #name); \
    const int result = real(descriptor);                      \
    const int error = errno;                                  \
    if (result == 0) Tell(descriptor);                        \
    errno = error;                                            \
    return result;                                            \
  }

RECORD(fsync)
RECORD(fdatasync)
