// Preloaded into a program: sends it a SIGTERM while its libraries are initialised, before main.
#include <signal.h>
#include <unistd.h>

__attribute__((constructor)) static void ask_to_stop(void) { kill(getpid(), SIGTERM); }
