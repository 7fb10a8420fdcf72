/* A wall clock that jumps: preloaded, it adds the seconds in the file named by FAULT_CLOCK to every look at the time of
 * day. Waits until a time of day are moved back, since the kernel's own clock does not jump. Monotonic clocks stay. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long kernel(long number, ...) { /* libc's own syscall() */
    static long (*next)(long, ...);
    long a[6];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(rest, long);
    va_end(rest);
    if (!next) next = dlsym(RTLD_NEXT, "syscall");
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static long offset_s(void) {
    static volatile long *mapped;
    static long none;
    if (!mapped) {
        const char *path = getenv("FAULT_CLOCK");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
        mapped = page == MAP_FAILED ? &none : page;
        if (file >= 0) close(file);
    }
    return *mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    long result = kernel(SYS_clock_gettime, (long)clock, (long)now, 0L, 0L, 0L, 0L);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += offset_s();
    return (int)result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}

static struct timespec unmoved(const struct timespec *until) {
    struct timespec real = *until, now;
    kernel(SYS_clock_gettime, (long)CLOCK_REALTIME, (long)&now, 0L, 0L, 0L, 0L);
    if (real.tv_sec > now.tv_sec / 2) real.tv_sec -= offset_s(); /* smaller ones count from boot: monotonic */
    return real;
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    static int (*next)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec real = unmoved(until);
    if (!next) next = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!next) next = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    return next(cond, mutex, &real);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
    static int (*next)(pthread_mutex_t *, const struct timespec *);
    struct timespec real = unmoved(until);
    if (!next) next = dlsym(RTLD_NEXT, "pthread_mutex_timedlock");
    return next(mutex, &real);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    static int (*next)(sem_t *, const struct timespec *);
    struct timespec real = unmoved(until);
    if (!next) next = dlsym(RTLD_NEXT, "sem_timedwait");
    return next(semaphore, &real);
}

long syscall(long number, ...) { /* gRPC waits by futex, until a time of day */
    long a[6];
    struct timespec real;
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(rest, long);
    va_end(rest);
    if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) && a[3]) {
        real = *(struct timespec *)a[3];
        real.tv_sec -= offset_s();
        a[3] = (long)&real;
    }
    return kernel(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
