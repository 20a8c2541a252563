/* The team of threads: the only file that starts threads, and the only one that knows OpenMP.
 *
 * An OpenMP region normally ends when every thread has arrived, so one thread that the system has descheduled
 * stalls the step. Here a host thread opens one OpenMP region whose threads stay in it as workers; the caller
 * publishes a job, takes part in it, and returns when the chunks are done, whoever did them. Chunks are claimed
 * from one atomic word {epoch, end, next}: a worker that arrives late finds nothing to claim and has touched
 * nothing. The caller claims from the front and the workers from the end, so that what a chunk of one job wrote is
 * mostly in the cache of the core that runs the like chunk of the next. No result depends on who ran which chunk.
 *
 * What remains is a worker that is descheduled within a chunk, for which the caller must wait. Where that takes more than
 * sharing gains, the caller works alone for a while, for twice as long if it then happens again: on a machine whose other
 * CPUs are taken, a second thread costs no more than it gains.
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
#include <immintrin.h>
#endif

enum { MAX_THREADS = 256 };
#define MAX_CHUNKS ((1 << 20) - 1)

/* epoch (24 bits) | end (20) | next (20): the chunks next.. to end are not claimed yet */
#define WORD(epoch, end, next) ((uint64_t)(epoch) << 40 | (uint64_t)(end) << 20 | (uint64_t)(next))
#define END(w) ((int64_t)((w) >> 20 & MAX_CHUNKS))
#define NEXT(w) ((int64_t)((w) & MAX_CHUNKS))

/* A job costs what its cache lines take from core to core: what a worker must know is one line, which the caller writes
 * once; what the caller must know is another, which it only reads. */
static struct {
    _Alignas(64) _Atomic uint64_t word;
    _Atomic(nn_task) task; /* this and the rest of the line: written only while no chunk is claimable */
    _Atomic(const void *) ctx;
    _Atomic int threads, rendezvous;
    _Atomic int64_t grain;             /* chunks claimed at a time */
    _Alignas(64) _Atomic int64_t done; /* chunks that workers have done, of all jobs */
    _Alignas(64) _Atomic int arrived;
    _Atomic int sleeping;
    pthread_mutex_t busy, sleep_lock;
    pthread_cond_t wake, wanted; /* a job; a job for a team as large as the surplus workers' numbers */
    _Atomic int workers;         /* written under busy */
    uint32_t epoch;
    int64_t given;               /* under busy: chunks that were left to workers, in all jobs before */
    int64_t shared_ns, alone_ns; /* under busy: time in jobs since the last stall; how that was answered */
    _Atomic int64_t alone_until; /* CLOCK_MONOTONIC */
    _Atomic int64_t missed_ns;   /* work not shared because the team was asleep, since it last woke */
} team = {.busy = PTHREAD_MUTEX_INITIALIZER,
          .sleep_lock = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER,
          .wanted = PTHREAD_COND_INITIALIZER};

static _Atomic int asked;           /* threads asked for by nn_set_num_threads; 0: none */
static _Atomic int usual;           /* threads otherwise; 0: not yet known */
static _Atomic int quota;           /* the control group's; 0: not yet known */
static _Atomic int openmp_when_set; /* omp_get_max_threads() when `asked` or `usual` was set */
static int openmp_default;          /* and when this library was loaded */
static int openmp_named;            /* OMP_NUM_THREADS was given then */
static _Atomic double threshold = -1.0;
static _Atomic uint64_t used[MAX_THREADS / 64];
static _Atomic int shared[NN_N_KERNELS]; /* more than one thread had a part in the kernel */
static _Thread_local int running = -1;   /* the kernel that runs on this thread */
static _Thread_local int deserved = 1;   /* threads that its work deserves */
static _Thread_local int inside;         /* a task is running on this thread */
static _Thread_local int64_t stood;      /* ns that its turns have waited for others since nn_parallel began */
static _Thread_local double awake_ns = NN_PARALLEL_AWAKE_NS;
static _Thread_local int held; /* threads that the scratch of the coming kernel was measured for; 0: none */

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

static int at_most(int n, int limit) { return limit > 0 && limit < n ? limit : n; }

static long number_in(const char *dir, const char *name, long *second)
{
    char file[1200];
    long n = 0;
    snprintf(file, sizeof file, "%s/%s", dir, name);
    FILE *f = fopen(file, "r");
    if (!f) return 0;
    int found = fscanf(f, "%ld %ld", &n, second); /* "max 100000" where there is no limit */
    fclose(f);
    return found > 0 && n > 0 ? n : 0;
}

/* CPUs that the quotas of a control group and of those above it allow, rounded up; 0: no limit. */
static int quota_of(const char *root, const char *path)
{
    char dir[1100];
    int n = 0, top = snprintf(dir, sizeof dir, "%s", root);
    snprintf(dir + top, sizeof dir - (size_t)top, "%s", path);
    for (;;) {
        long period = 0, none = 0, time = number_in(dir, "cpu.max", &period); /* version 2 */
        if (!time) {
            time = number_in(dir, "cpu.cfs_quota_us", &none); /* version 1 */
            period = number_in(dir, "cpu.cfs_period_us", &none);
        }
        if (time > 0 && period > 0) {
            int allowed = (time - 1) / period < MAX_THREADS ? (int)((time - 1) / period) + 1 : MAX_THREADS;
            n = n ? at_most(n, allowed) : allowed;
        }
        char *slash = strrchr(dir + top, '/');
        if (!slash) return n;
        *slash = 0;
    }
}

int nn_cgroup_cpus(const char *root, const char *membership)
{
    char line[512], dir[512];
    int n = 0;
    FILE *f = fopen(membership, "r"); /* lines "number:controllers:/path"; version 2 names no controllers */
    if (!f) return 0;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path) continue;
        *path++ = 0;
        controllers++;
        int cpu = 0;
        snprintf(dir, sizeof dir, "%s%s%s", root, *controllers ? "/" : "", controllers);
        for (char *c = strtok(controllers, ","); c; c = strtok(NULL, ",")) cpu |= strcmp(c, "cpu") == 0;
        if (*controllers && !cpu) continue;
        int found = quota_of(dir, path);
        if (found) n = n ? at_most(n, found) : found;
        if (!cpu) continue;
        snprintf(dir, sizeof dir, "%s/cpu", root); /* where the controllers of one mount have each a link to it */
        if ((found = quota_of(dir, path))) n = n ? at_most(n, found) : found;
    }
    fclose(f);
    return n;
}

static int affinity(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

void nn_follow_affinity(void)
{
    if (atomic_load(&asked)) return;
    int n = omp_get_max_threads();
    if (!atomic_load(&usual)) atomic_store(&openmp_when_set, n);
    if (!openmp_named) {
        if (!atomic_load(&quota)) {
            int found = nn_cgroup_cpus("/sys/fs/cgroup", "/proc/self/cgroup");
            atomic_store(&quota, found ? found : MAX_THREADS);
        }
        n = at_most(at_most(openmp_default, atomic_load(&quota)), affinity());
    }
    atomic_store(&usual, n < 1 ? 1 : at_most(n, MAX_THREADS));
}

void nn_set_num_threads(int n)
{
    atomic_store(&openmp_when_set, omp_get_max_threads());
    atomic_store(&asked, n < 1 ? 1 : at_most(n, MAX_THREADS));
}

/* threadpoolctl and other callers limit us through omp_set_num_threads: a number that came after ours and is below
 * OpenMP's own default is a limit here too. */
int nn_get_num_threads(void)
{
    if (!atomic_load(&asked) && !atomic_load(&usual)) nn_follow_affinity();
    int n = atomic_load(&asked) ? atomic_load(&asked) : atomic_load(&usual), omp = omp_get_max_threads();
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

void nn_running(int kernel)
{
    running = kernel;
    if (kernel >= 0) deserved = 1;
}
int nn_threads_deserved(void) { return deserved; }
int nn_kernel_shared(int kernel, int reset)
{
    return reset ? atomic_exchange(&shared[kernel], 0) : atomic_load(&shared[kernel]);
}

/* ---- a job ---- */

/* The fields of a job are in order with its word, which is stored after and loaded before them. */
#define READ(field) atomic_load_explicit(&team.field, memory_order_relaxed)
#define WRITE(field, value) atomic_store_explicit(&team.field, value, memory_order_relaxed)

static void mark_used(int tid)
{
    uint64_t bit = (uint64_t)1 << (tid % 64);
    if (!(atomic_load_explicit(&used[tid / 64], memory_order_relaxed) & bit)) atomic_fetch_or(&used[tid / 64], bit);
}

/* Claims and runs chunks of the current job until none is left; for a worker, if the job admits it. Returns how many.
 * The job's fields may be read as those of a later job, whose word then is not w. */
static int64_t take_part(int tid)
{
    uint64_t joined = UINT64_MAX; /* the job in which this thread has met the others */
    int64_t count = 0;
    for (;;) {
        uint64_t w = atomic_load(&team.word);
        int64_t left = END(w) - NEXT(w);
        if (left <= 0) return count;
        nn_task task = READ(task);
        const void *ctx = READ(ctx);
        int threads = READ(threads), rendezvous = READ(rendezvous);
        int64_t claim = READ(grain);
        if (tid >= threads) return count;
        if (claim > left) claim = left;
        int64_t first = tid > 0 ? END(w) - claim : NEXT(w);
        /* If the word is still w, the job was not replaced while its fields were read. */
        if (!atomic_compare_exchange_weak(&team.word, &w, tid > 0 ? w - ((uint64_t)claim << 20) : w + (uint64_t)claim))
            continue;
        mark_used(tid);
        if (rendezvous && w >> 40 != joined) {
            atomic_fetch_add(&team.arrived, 1);
            while (atomic_load(&team.arrived) < rendezvous) sched_yield();
        }
        joined = w >> 40;
        for (int64_t i = 0; i < claim; i++) task(ctx, first + i, tid);
        count += claim;
        if (tid > 0) atomic_fetch_add(&team.done, claim);
    }
}

static void worker(int tid)
{
    inside = 1;
    nn_float_enter();
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

/* The work from which a job is shared. A sleeping team is woken by one large job, or when as much work has been missed in
 * smaller ones that each would have been worth sharing. */
static int worth_sharing(double ns)
{
    double limit = atomic_load(&threshold);
    if (limit >= 0) return ns >= limit;
    if (ns < awake_ns) return 0;
    int64_t alone = atomic_load_explicit(&team.alone_until, memory_order_relaxed);
    if (alone && now_ns() < alone) return 0;
    int awake = atomic_load(&team.workers) && !atomic_load(&team.sleeping);
    if (awake || ns >= NN_PARALLEL_ASLEEP_NS) return 1;
    return (double)atomic_fetch_add(&team.missed_ns, (int64_t)ns) + ns >= NN_PARALLEL_ASLEEP_NS;
}

static int team_for(int64_t chunks, double ns)
{
    if (chunks < 2 || inside) return 1;
    int n = nn_team_max();
    if (n > chunks) n = (int)chunks;
    return n < 2 || omp_in_parallel() || !worth_sharing(ns) ? 1 : n;
}

int nn_team_for(double ns)
{
    double limit = atomic_load(&threshold);
    return inside || ns < (limit < 0 ? awake_ns : limit) ? 1 : nn_team_max();
}

/* A job of the team is over, in which the caller waited `waited` ns for chunks of others, having run `own` itself in `busy`
 * ns. A stall that has eaten much of what sharing gained since the last one means working alone for a while. */
static void mind_stall(int64_t now, int64_t waited, int64_t busy, int64_t own)
{
    int64_t stall = waited - 2 * busy / (own > 0 ? own : 1);
    team.shared_ns += busy;
    if (stall < NN_STALL_NS || atomic_load(&threshold) >= 0) return;
    int64_t worth = team.shared_ns > NN_STALL_FACTOR * stall;
    team.shared_ns = 0;
    team.alone_ns = worth ? 0 : team.alone_ns ? 2 * team.alone_ns : NN_STALL_FACTOR * stall;
    if (team.alone_ns > NN_ALONE_MAX_NS) team.alone_ns = NN_ALONE_MAX_NS;
    if (!worth) atomic_store(&team.alone_until, now + team.alone_ns);
}

void nn_parallel(nn_task task, const void *ctx, int64_t chunks, double nanoseconds)
{
    int n = team_for(chunks, nanoseconds);
    if (nanoseconds >= awake_ns && chunks > deserved) {
        int worth = nn_team_for(nanoseconds);
        if (worth > deserved) deserved = worth < chunks ? worth : (int)chunks;
    }
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
    int rendezvous = atomic_load(&threshold) == 0 ? n : 0; /* threads that meet before they go on: for tests */
    if (rendezvous && n > 1 && running >= 0) atomic_store(&shared[running], 1);
    double grain = rendezvous ? 1 : (double)chunks * NN_CLAIM_NS / (nanoseconds + 1);
    double most = (double)chunks / (4 * n);
    if (grain > most) grain = most;
    int64_t claim = grain > 1 ? (int64_t)grain : 1, own = rendezvous ? 0 : claim; /* the caller's first chunks */
    int grown = n > READ(threads);
    WRITE(task, task);
    WRITE(ctx, ctx);
    WRITE(threads, n);
    WRITE(rendezvous, rendezvous);
    WRITE(grain, claim);
    if (rendezvous) atomic_store(&team.arrived, 0);
    team.epoch = (team.epoch + 1) & 0xffffff;
    atomic_store(&team.word, WORD(team.epoch, chunks, own)); /* in order with the look at `sleeping` */
    if (grown || atomic_load(&team.sleeping)) {
        atomic_store(&team.missed_ns, 0);
        nn_follow_affinity(); /* from the next job on */
        pthread_mutex_lock(&team.sleep_lock);
        pthread_cond_broadcast(&team.wake);
        if (grown) pthread_cond_broadcast(&team.wanted);
        pthread_mutex_unlock(&team.sleep_lock);
    }
    int64_t start = now_ns(), done = 0;
    stood = 0;
    inside = 1;
    if (own > 0) mark_used(0);
    for (int64_t i = 0; i < own; i++) task(ctx, i, 0);
    own += take_part(0);
    inside = 0;
    team.given += chunks - own;
    for (int i = 0; atomic_load(&team.done) < team.given; i++)
        if (i < NN_SPINS_BEFORE_YIELD) {
            relax();
        } else {
            if (!done) done = now_ns();
            sched_yield();
        }
    int64_t now = now_ns();
    mind_stall(now, (done ? now - done : 0) + stood, (done ? done : now) - start - stood, own);
    pthread_mutex_unlock(&team.busy);
}

/* ---- turns ---- */

/* What others look at while they wait is another line than what its owner writes to claim. */
typedef struct {
    _Alignas(64) _Atomic uint64_t claimed; /* turn (44 bits) | chunks of its part (20) */
    _Alignas(64) _Atomic int64_t done;     /* in all turns, and 1 more as it is there */
} member;
_Static_assert(sizeof(member) == NN_MEMBER_BYTES, "nncore.h");

/* Does what nobody has claimed of the part of member m. */
static void do_part(nn_turns *t, int64_t m, nn_task task, const void *ctx, int64_t chunks, int tid)
{
    member *all = t->members;
    int64_t first = chunks * m / t->n, size = chunks * (m + 1) / t->n - first;
    uint64_t w = atomic_load(&all[m].claimed);
    for (;;) {
        int64_t turn = (int64_t)(w >> 20), next = turn == t->turn ? NEXT(w) : 0;
        if (turn > t->turn || next >= size) return;
        if (!atomic_compare_exchange_weak(&all[m].claimed, &w, (uint64_t)t->turn << 20 | (uint64_t)(next + 1)))
            continue;
        task(ctx, first + next, tid);
        atomic_store_explicit(&all[t->self].done, ++t->done + 1, memory_order_release);
        w = atomic_load(&all[m].claimed);
    }
}

void nn_turn(nn_turns *t, nn_task task, const void *ctx, int64_t chunks, int tid)
{
    if (t->n == 1) {
        for (int64_t i = 0; i < chunks; i++) task(ctx, i, tid);
        return;
    }
    member *all = t->members;
    if (t->turn++ == 0) atomic_store(&all[t->self].done, 1);
    t->total += chunks;
    do_part(t, t->self, task, ctx, chunks, tid);
    int64_t since = 0;
    int patience = chunks <= t->n ? NN_SPINS_BEFORE_HELP : 0, helped = 0; /* who is there begins its one chunk soon */
    for (int i = 0;; i++) {
        int64_t done = 0, absent = 0;
        for (int64_t m = 0; m < t->n; m++) {
            int64_t d = atomic_load_explicit(&all[m].done, memory_order_acquire);
            absent += d == 0;
            done += d - (d > 0);
        }
        if (done >= t->total) break;
        if (!helped && (absent || i >= patience)) {
            for (int64_t m = 1; m < t->n; m++) do_part(t, (t->self + m) % t->n, task, ctx, chunks, tid);
            helped = 1;
        } else if (i < NN_SPINS_BEFORE_YIELD) {
            relax();
        } else {
            if (!since) since = now_ns();
            sched_yield();
        }
    }
    if (since) stood += now_ns() - since;
}

/* ---- trials ---- */

void nn_trial_begin(nn_trial *t)
{
    t->start = 0;
    int threads = nn_get_num_threads();
    if (inside || atomic_load(&threshold) >= 0 || threads < 2) return;
    if (threads != t->threads) *t = (nn_trial){.threads = threads};
    if (!t->trying && t->left-- <= 0) {
        t->trying = 2 * NN_TRIAL_RUNS;
        atomic_store(&team.missed_ns, (int64_t)NN_PARALLEL_ASLEEP_NS); /* the next job worth sharing wakes the team */
    }
    inside = t->trying ? t->trying <= NN_TRIAL_RUNS : t->alone;
    if (t->trying ? !inside : t->shared) awake_ns = NN_PARALLEL_TRIED_NS;
    t->start = now_ns();
}

void nn_trial_end(nn_trial *t)
{
    if (!t->start) return;
    inside = 0;
    awake_ns = NN_PARALLEL_AWAKE_NS;
    if (!t->trying) return;
    int64_t ns = now_ns() - t->start;
    int i = NN_TRIAL_RUNS - 1 - --t->trying % NN_TRIAL_RUNS;
    for (; i > 0 && t->ns[i - 1] > ns; i--) t->ns[i] = t->ns[i - 1];
    t->ns[i] = ns;
    if (t->trying % NN_TRIAL_RUNS) return;
    int64_t median = t->ns[NN_TRIAL_RUNS / 2];
    if (t->trying) t->shared_ns = median;
    int alone = !t->trying && (double)t->shared_ns > (1 - NN_TRIAL_GAIN) * (double)median;
    if (t->trying && median <= NN_TRIAL_MAX_NS) return;
    t->pause = t->alone != alone || !t->pause ? NN_TRIAL_PAUSE : 2 * t->pause;
    if (t->pause > NN_TRIAL_PAUSE_MAX) t->pause = NN_TRIAL_PAUSE_MAX;
    t->left = t->pause;
    t->shared = !t->trying && !alone;
    t->trying = 0;
    t->alone = alone;
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
    atomic_store(&team.alone_until, 0);
    atomic_store(&usual, 0); /* the child may be given other CPUs */
    atomic_store(&quota, 0);
    team.workers = 0;
}

__attribute__((constructor)) static void at_load(void)
{
    const char *named = getenv("OMP_NUM_THREADS");
    openmp_default = omp_get_max_threads();
    openmp_named = named && *named;
    pthread_atfork(before_fork, parent_after_fork, child_after_fork);
}
