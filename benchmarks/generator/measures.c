/* Clocks, the distribution of latencies, and what the server's processes use. */
#define _GNU_SOURCE
#include "generator.h"

#include <dirent.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* Bins grow with the value: 32 to each doubling, so a quantile is right to 3 %. */
enum { FINE = 32, BINS = 64 * FINE };
static uint64_t bins[BINS], noted;

static uint64_t nanoseconds_of(clockid_t clock) {
    struct timespec time;
    if (clock_gettime(clock, &time)) return 0;
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

uint64_t now(void) { return nanoseconds_of(CLOCK_MONOTONIC); }

double own_cpu_us(void) { return nanoseconds_of(CLOCK_PROCESS_CPUTIME_ID) / 1e3; }

void note_latency(uint64_t value) {
    unsigned bin = (unsigned)value;
    if (value >= FINE) {
        int doubling = 63 - __builtin_clzll(value) - 5;
        bin = (unsigned)(doubling * FINE) + (unsigned)(value >> doubling);
    }
    bins[bin]++;
    noted++;
}

double latency_ms(double quantile) {
    uint64_t wanted = (uint64_t)(quantile * (double)noted), passed = 0;
    for (unsigned bin = 0; bin < BINS && noted; bin++) {
        passed += bins[bin];
        if (passed <= wanted) continue;
        if (bin < 2 * FINE) return bin / 1e6;
        unsigned doubling = bin / FINE - 1;
        return (double)((uint64_t)(bin - doubling * FINE) << doubling) / 1e6;
    }
    return 0;
}

static double cpu_us_of(int pid) {
    clockid_t clock;
    return clock_getcpuclockid(pid, &clock) ? 0 : nanoseconds_of(clock) / 1e3;
}

static double rss_kb_of(int pid) {
    char path[64];
    long size, resident = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", pid);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    if (fscanf(file, "%ld %ld", &size, &resident) != 2) resident = 0;
    fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / 1024;
}

/* The sum over a process and all that it started: workers count for their supervisor. */
static double with_children(int pid, double (*measure)(int)) {
    char path[300];
    double sum = measure(pid);
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *threads = opendir(path);
    for (struct dirent *thread; threads && (thread = readdir(threads));) {
        if (thread->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/children", pid, thread->d_name);
        FILE *file = fopen(path, "r");
        for (int child; file && fscanf(file, "%d", &child) == 1;) sum += with_children(child, measure);
        if (file) fclose(file);
    }
    if (threads) closedir(threads);
    return sum;
}

static double of_server(double (*measure)(int)) {
    double sum = 0;
    for (int i = 0; i < options.pid_count; i++) sum += with_children(options.pids[i], measure);
    return sum;
}

double server_cpu_us(void) { return of_server(cpu_us_of); }

double server_rss_kb(void) { return of_server(rss_kb_of); }
