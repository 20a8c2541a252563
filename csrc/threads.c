/* The team of threads: the only file that starts threads, and the only one that knows OpenMP.
 *
 * An OpenMP region normally ends when every thread has arrived, so one thread that the system has descheduled
 * stalls the step. Here a host thread opens one OpenMP region whose threads stay in it as workers; the caller
 * publishes a job, takes part in it, and returns when the chunks are done, whoever did them. Chunks are claimed
 * from one atomic word {epoch, chunks, next}: a worker that arrives late finds nothing to claim and has touched
 * nothing. No result depends on who ran which chunk.
 *
 * A second caller (another Python thread), a caller inside somebody's parallel region, and a task that calls
 * nn_parallel itself all run their chunks alone. A forked child forgets the team and builds a new one, from a
 * new host thread, when it first needs it: the inherited one does not exist there.
 */
#define _GNU_SOURCE
#include "nncore.h"
#include "tuning.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

enum { MAX_THREADS = 256 };
#define MAX_CHUNKS ((1 << 20) - 1)

/* epoch (24 bits) | chunks (20) | next (20) */
#define WORD(epoch, chunks, next) ((uint64_t)(epoch) << 40 | (uint64_t)(chunks) << 20 | (uint64_t)(next))
#define CHUNKS(w) ((int64_t)((w) >> 20 & MAX_CHUNKS))
#define NEXT(w) ((int64_t)((w) & MAX_CHUNKS))

static struct {
    _Alignas(64) _Atomic uint64_t word;
    _Alignas(64) _Atomic int64_t done;
    _Alignas(64) _Atomic(nn_task) task; /* written only while no chunk is claimable */
    _Atomic(const void *) ctx;
    _Atomic int threads, rendezvous;
    _Alignas(64) _Atomic int arrived;
    _Atomic int sleeping;
    pthread_mutex_t busy, sleep_lock;
    pthread_cond_t wake, wanted; /* a job; a job for a team as large as the surplus workers' numbers */
    int workers;                 /* under busy */
    uint32_t epoch;
} team = {.busy = PTHREAD_MUTEX_INITIALIZER,
          .sleep_lock = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER,
          .wanted = PTHREAD_COND_INITIALIZER};

static _Atomic int wanted;          /* threads asked for; 0: not yet set */
static _Atomic int openmp_when_set; /* omp_get_max_threads() at that time */
static int openmp_default;          /* and when this library was loaded */
static _Atomic double threshold = -1.0;
static _Atomic uint64_t used[MAX_THREADS / 64];
static _Thread_local int inside; /* a task is running on this thread */
static _Thread_local int held;   /* threads that the scratch of the coming kernel was measured for; 0: none */

static inline void relax(void)
{
#ifdef __SSE__
    _mm_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- how many ---- */

/* CPUs that the control group's quota allows, rounded up; MAX_THREADS if there is none. */
static int quota_of(const char *file)
{
    long quota = -1, period = 0;
    FILE *f = fopen(file, "r");
    if (!f) return MAX_THREADS;
    if (fscanf(f, "%ld %ld", &quota, &period) != 2) quota = -1; /* "max" */
    fclose(f);
    return quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : MAX_THREADS;
}

static int cgroup_quota(void)
{
    char line[512], file[600];
    int n = quota_of("/sys/fs/cgroup/cpu.max");
    FILE *f = fopen("/proc/self/cgroup", "r"); /* version 2: a line "0::/path" */
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, "0::/", 4) != 0 || line[4] == 0) continue;
        snprintf(file, sizeof file, "/sys/fs/cgroup%s/cpu.max", line + 3);
        if (quota_of(file) < n) n = quota_of(file);
    }
    if (f) fclose(f);
    long quota = -1, period = 0; /* version 1 */
    if ((f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r"))) {
        if (fscanf(f, "%ld", &quota) != 1) quota = -1;
        fclose(f);
        if ((f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r"))) {
            if (fscanf(f, "%ld", &period) != 1) period = 0;
            fclose(f);
        }
        if (quota > 0 && period > 0 && (quota + period - 1) / period < n) n = (int)((quota + period - 1) / period);
    }
    return n;
}

static int default_threads(void)
{
    int n = omp_get_max_threads(); /* OMP_NUM_THREADS, else the CPUs of the affinity mask */
    int quota = cgroup_quota();
    if (quota < n) n = quota;
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n;
}

void nn_set_num_threads(int n)
{
    atomic_store(&openmp_when_set, omp_get_max_threads());
    atomic_store(&wanted, n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n);
}

/* threadpoolctl and other callers limit us through omp_set_num_threads: a number that came after ours and is below
 * OpenMP's own default is a limit here too. */
int nn_get_num_threads(void)
{
    if (!atomic_load(&wanted)) nn_set_num_threads(default_threads());
    int n = atomic_load(&wanted), omp = omp_get_max_threads();
    return omp != atomic_load(&openmp_when_set) && omp < openmp_default && omp < n ? omp : n;
}

int nn_team_max(void) { return held ? held : nn_get_num_threads(); }
void nn_hold_team(int hold) { held = hold ? nn_get_num_threads() : 0; }

void nn_set_parallel_threshold(double ns) { atomic_store(&threshold, ns); }
double nn_get_parallel_threshold(void) { return atomic_load(&threshold); }

int nn_threads_used(int reset)
{
    int n = 0;
    for (int i = 0; i < MAX_THREADS / 64; i++)
        n += __builtin_popcountll(reset ? atomic_exchange(&used[i], 0) : atomic_load(&used[i]));
    return n;
}

/* ---- a job ---- */

static void mark_used(int tid)
{
    uint64_t bit = (uint64_t)1 << (tid % 64);
    if (!(atomic_load_explicit(&used[tid / 64], memory_order_relaxed) & bit)) atomic_fetch_or(&used[tid / 64], bit);
}

/* Claims and runs chunks of the current job until none is left; for a worker, if the job admits it. */
static void take_part(int tid)
{
    uint64_t joined = UINT64_MAX; /* the job in which this thread has met the others */
    for (;;) {
        uint64_t w = atomic_load(&team.word);
        int64_t chunks = CHUNKS(w), next = NEXT(w);
        if (next >= chunks) return;
        nn_task task = atomic_load(&team.task);
        const void *ctx = atomic_load(&team.ctx);
        int threads = atomic_load(&team.threads), rendezvous = atomic_load(&team.rendezvous);
        if (tid >= threads) return;
        /* If the word is still w, the job was not replaced while its fields were read. */
        if (!atomic_compare_exchange_weak(&team.word, &w, w + 1)) continue;
        mark_used(tid);
        if (rendezvous && w >> 40 != joined) {
            int64_t all = threads < chunks ? threads : chunks;
            atomic_fetch_add(&team.arrived, 1);
            while (atomic_load(&team.arrived) < all) sched_yield();
        }
        joined = w >> 40;
        task(ctx, next, tid);
        atomic_fetch_add(&team.done, 1);
    }
}

static void worker(int tid)
{
    inside = 1;
#ifdef __SSE__
    _mm_setcsr(_mm_getcsr() | 0x8040); /* flush denormals, as nn_run does for the caller */
#endif
    uint64_t seen = atomic_load(&team.word) >> 40;
    for (;;) {
        take_part(tid);
        if (tid >= atomic_load(&team.threads)) { /* surplus: neither spins nor is woken by every job */
            pthread_mutex_lock(&team.sleep_lock);
            while (tid >= atomic_load(&team.threads)) pthread_cond_wait(&team.wanted, &team.sleep_lock);
            pthread_mutex_unlock(&team.sleep_lock);
            seen = (atomic_load(&team.word) >> 40) - 1; /* look at the job that woke it */
        }
        int64_t until = now_ns() + NN_SPIN_NS;
        for (int i = 0; atomic_load(&team.word) >> 40 == seen; i++) {
            relax();
            if (i % NN_SPINS_PER_LOOK == NN_SPINS_PER_LOOK - 1 && now_ns() > until) {
                pthread_mutex_lock(&team.sleep_lock);
                atomic_fetch_add(&team.sleeping, 1);
                while (atomic_load(&team.word) >> 40 == seen) pthread_cond_wait(&team.wake, &team.sleep_lock);
                atomic_fetch_sub(&team.sleeping, 1);
                pthread_mutex_unlock(&team.sleep_lock);
            }
        }
        seen = atomic_load(&team.word) >> 40;
    }
}

typedef struct {
    int first, count;
} hosted;

static void *host(void *p)
{
    hosted h = *(hosted *)p;
    free(p);
#pragma omp parallel num_threads(h.count)
    {
        /* With fewer threads than asked for (OMP_THREAD_LIMIT) the others' chunks are done by the rest. */
        worker(h.first + omp_get_thread_num());
    }
    return NULL;
}

/* Under busy. The team grows and never shrinks: surplus workers sleep. */
static void grow(int threads)
{
    int missing = threads - 1 - team.workers;
    if (missing <= 0) return;
    hosted *h = malloc(sizeof *h);
    pthread_t id;
    pthread_attr_t attr;
    if (!h) return;
    *h = (hosted){team.workers + 1, missing};
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&id, &attr, host, h) == 0) team.workers += missing;
    else free(h);
    pthread_attr_destroy(&attr);
}

static int team_for(int64_t chunks, double ns)
{
    double limit = atomic_load(&threshold);
    if (limit < 0) limit = atomic_load(&team.sleeping) ? NN_PARALLEL_ASLEEP_NS : NN_PARALLEL_AWAKE_NS;
    if (chunks < 2 || ns < limit || inside) return 1;
    int n = nn_team_max();
    if (n > chunks) n = (int)chunks;
    return n < 2 || omp_in_parallel() ? 1 : n;
}

void nn_parallel(nn_task task, const void *ctx, int64_t chunks, double nanoseconds)
{
    int n = team_for(chunks, nanoseconds);
    if (n > 1 && (chunks > MAX_CHUNKS || pthread_mutex_trylock(&team.busy) != 0)) n = 1;
    if (n == 1) {
        if (chunks > 0) mark_used(0);
        int was = inside;
        inside = 1;
        for (int64_t i = 0; i < chunks; i++) task(ctx, i, 0);
        inside = was;
        return;
    }
    grow(n);
    if (team.workers + 1 < n) n = team.workers + 1;
    atomic_store(&team.task, task);
    atomic_store(&team.ctx, ctx);
    int grown = n > atomic_exchange(&team.threads, n);
    atomic_store(&team.rendezvous, atomic_load(&threshold) == 0);
    atomic_store(&team.arrived, 0);
    atomic_store(&team.done, 0);
    team.epoch = (team.epoch + 1) & 0xffffff;
    atomic_store(&team.word, WORD(team.epoch, chunks, 0));
    if (grown || atomic_load(&team.sleeping)) {
        pthread_mutex_lock(&team.sleep_lock);
        pthread_cond_broadcast(&team.wake);
        if (grown) pthread_cond_broadcast(&team.wanted);
        pthread_mutex_unlock(&team.sleep_lock);
    }
    inside = 1;
    take_part(0);
    inside = 0;
    for (int i = 0; atomic_load(&team.done) < chunks; i++)
        if (i < NN_SPINS_BEFORE_YIELD) relax();
        else sched_yield();
    pthread_mutex_unlock(&team.busy);
}

/* ---- fork ---- */

static void before_fork(void) { pthread_mutex_lock(&team.busy); }
static void parent_after_fork(void) { pthread_mutex_unlock(&team.busy); }
static void child_after_fork(void)
{
    pthread_mutex_init(&team.busy, NULL);
    pthread_mutex_init(&team.sleep_lock, NULL);
    pthread_cond_init(&team.wake, NULL);
    pthread_cond_init(&team.wanted, NULL);
    atomic_store(&team.sleeping, 0);
    team.workers = 0;
}

__attribute__((constructor)) static void at_load(void)
{
    openmp_default = omp_get_max_threads();
    pthread_atfork(before_fork, parent_after_fork, child_after_fork);
}
