/* The machine's own limit: N programs started and reaped as fast as a C loop can, K in flight.
 *
 *   spawn_loop COUNT IN_FLIGHT PROGRAM   prints programs per second, checks every exit status
 */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: %s COUNT IN_FLIGHT PROGRAM\n", argv[0]);
        return 2;
    }
    int count = atoi(argv[1]), limit = atoi(argv[2]), started = 0, ended = 0;
    char *child_argv[] = {argv[3], NULL};
    double began = now();
    while (ended < count) {
        while (started < count && started - ended < limit) {
            pid_t pid;
            if (posix_spawn(&pid, argv[3], NULL, NULL, child_argv, environ) != 0) {
                perror(argv[3]);
                return 1;
            }
            started++;
        }
        int status;
        if (waitpid(-1, &status, 0) < 0 || status != 0) {
            fprintf(stderr, "%s: wait status %d\n", argv[3], status);
            return 1;
        }
        ended++;
    }
    printf("%.1f\n", count / (now() - began));
    return 0;
}
