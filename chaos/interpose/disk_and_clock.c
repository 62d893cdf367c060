/* Loaded into a node's process: makes its disk slow or faulty and its wall clock wrong, as the three
 * first numbers say that are in the file named by TENURE_CHAOS_SWITCHES, and counts what it did there:
 *
 *   0  how many milliseconds each sync takes longer
 *   1  how many syncs fail with EIO; each failure counts down by one
 *   2  how many milliseconds the wall clock is ahead (or behind, if negative)
 *   3  how many syncs were slowed
 *   4  how many readings of the wall clock were wrong
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static _Atomic int64_t none[5];
static _Atomic int64_t *switches = none;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TENURE_CHAOS_SWITCHES");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *there = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (there != MAP_FAILED)
        switches = there;
}

static int spoil(void) {
    int64_t slow = switches[0];
    if (slow > 0) {
        switches[3]++;
        struct timespec wait = {slow / 1000, (slow % 1000) * 1000000};
        nanosleep(&wait, NULL);
    }
    int64_t left = switches[1];
    while (left > 0) {
        if (__atomic_compare_exchange_n((int64_t *)&switches[1], &left, left - 1, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST)) {
            errno = EIO;
            return -1;
        }
    }
    return 0;
}

int fsync(int file) {
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return spoil() ? -1 : real(file);
}

int fdatasync(int file) {
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return spoil() ? -1 : real(file);
}

int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(which, now);
    int64_t ahead = switches[2];
    if (done == 0 && ahead != 0 && which == CLOCK_REALTIME) {
        switches[4]++;
        int64_t nanos = now->tv_nsec + (ahead % 1000) * 1000000;
        now->tv_sec += ahead / 1000 + (nanos < 0 ? -1 : nanos / 1000000000);
        now->tv_nsec = nanos < 0 ? nanos + 1000000000 : nanos % 1000000000;
    }
    return done;
}
