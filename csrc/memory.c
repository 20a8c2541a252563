/* The caching allocator: a steady training step asks for the same sizes again and again, so freed blocks are
 * kept by size class and handed out again, up to the peak of what was in use (at least 256 MiB).
 *
 * Classes are 4 per octave (waste at most 25 %), multiples of 64 bytes. Small blocks are carved from 8 MiB
 * slabs, large ones mapped alone; both are 2 MiB-aligned and advised as huge pages. Large blocks start at
 * varying offsets, so that the streams of one kernel do not collide in the same cache sets (4 KiB aliasing).
 *
 * Beyond that, the blocks idle longest go back to the system: large ones whole, those of NN_PAGES_BYTES and more within a slab
 * by their pages, while their addresses wait in `hollow`.
 */
#define _GNU_SOURCE
#include "nncore.h"
#include "tuning.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#define ALIGN ((size_t)64)
#define HUGE ((size_t)2 << 20)
#define PAGE ((size_t)4096)

typedef struct block {
    struct block *next;
} block;

static struct {
    pthread_mutex_t lock;
    block *freed[256], *hollow[256];
    uint64_t used_at[256], clock; /* when a class was last asked for or given back */
    char *slab, *slab_end;
    unsigned skew;
    int64_t in_use, peak, cached;
} heap = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The class of a size, and the size of a class: 64 128 192 256, then 4 steps per octave. */
static int class_of(size_t bytes, size_t *size)
{
    if (bytes <= 256) {
        size_t lines = bytes ? (bytes + ALIGN - 1) / ALIGN : 1;
        *size = lines * ALIGN;
        return (int)lines - 1;
    }
    int top = 63 - __builtin_clzll((unsigned long long)(bytes - 1)); /* 2^top <= bytes-1 < 2^(top+1) */
    size_t step = (size_t)1 << (top - 2);
    size_t quarter = (bytes - 1 - ((size_t)1 << top)) / step;
    *size = ((size_t)1 << top) + (quarter + 1) * step;
    return 4 + (top - 8) * 4 + (int)quarter;
}

static char *map_aligned(size_t bytes)
{
    char *raw = mmap(NULL, bytes + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) return NULL;
    char *p = (char *)(((uintptr_t)raw + HUGE - 1) & ~(uintptr_t)(HUGE - 1));
    if (p > raw) munmap(raw, (size_t)(p - raw));
    if (raw + HUGE > p) munmap(p + bytes, (size_t)(raw + HUGE - p));
#ifdef MADV_HUGEPAGE
    madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
}

static size_t mapped_size(size_t size) { return (size + NN_SKEW_LINES * ALIGN + HUGE - 1) & ~(HUGE - 1); }
static void unmap(void *p, size_t size) { munmap((void *)((uintptr_t)p & ~(uintptr_t)(HUGE - 1)), mapped_size(size)); }

static void account(int64_t bytes)
{
    heap.in_use += bytes;
    if (heap.in_use > heap.peak) heap.peak = heap.in_use;
}

#ifdef NN_DEBUG /* every block alone, so that the address sanitizer sees its ends */

void *nn_alloc(size_t bytes)
{
    size_t size = bytes ? (bytes + ALIGN - 1) & ~(ALIGN - 1) : ALIGN;
    if (bytes > (size_t)1 << 40) return NULL; /* the sanitizer would abort */
    char *p = aligned_alloc(ALIGN, size);
    pthread_mutex_lock(&heap.lock);
    if (p) account((int64_t)bytes);
    pthread_mutex_unlock(&heap.lock);
    return p;
}

void nn_free(void *p, size_t bytes)
{
    pthread_mutex_lock(&heap.lock);
    account(-(int64_t)bytes);
    pthread_mutex_unlock(&heap.lock);
    free(p);
}

void nn_empty_cache(void) {}

#else

void *nn_alloc(size_t bytes)
{
    size_t size;
    if (bytes > (size_t)1 << 46) return NULL;
    int c = class_of(bytes, &size);
    pthread_mutex_lock(&heap.lock);
    heap.used_at[c] = ++heap.clock;
    void *p = heap.freed[c];
    if (p) {
        heap.freed[c] = ((block *)p)->next;
        heap.cached -= (int64_t)size;
    } else if (heap.hollow[c]) {
        p = heap.hollow[c];
        heap.hollow[c] = ((block *)p)->next;
    } else if (size >= HUGE) {
        p = map_aligned(mapped_size(size));
        if (p) {
            heap.skew = (heap.skew + NN_SKEW_STEP) % NN_SKEW_LINES;
            p = (char *)p + heap.skew * ALIGN;
        }
    } else {
        if ((size_t)(heap.slab_end - heap.slab) < size) {
            char *slab = map_aligned(NN_SLAB_BYTES);
            heap.slab = slab;
            heap.slab_end = slab ? slab + NN_SLAB_BYTES : NULL;
        }
        p = heap.slab;
        if (p) heap.slab += size;
    }
    if (p) account((int64_t)size);
    pthread_mutex_unlock(&heap.lock);
    return p;
}

static size_t size_of_class(int c) { return (size_t)(4 + (c - 4) % 4 + 1) << ((c - 4) / 4 + 8 - 2); } /* c >= 4 */

/* The pages that lie within a block, but for the one that holds its link. */
static void give_back_pages(block *b, size_t size)
{
    uintptr_t from = ((uintptr_t)(b + 1) + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
    uintptr_t to = ((uintptr_t)b + size) & ~(uintptr_t)(PAGE - 1);
    madvise((void *)from, to - from, MADV_DONTNEED);
}

/* Gives back a cached block of the class that has been idle longest: what a steady step uses stays. */
static int drop_oldest(void)
{
    size_t size;
    int oldest = -1;
    for (int c = class_of(NN_PAGES_BYTES, &size); c < 256; c++)
        if (heap.freed[c] && (oldest < 0 || heap.used_at[c] < heap.used_at[oldest])) oldest = c;
    if (oldest < 0) return 0;
    block *b = heap.freed[oldest];
    size = size_of_class(oldest);
    heap.freed[oldest] = b->next;
    heap.cached -= (int64_t)size;
    if (size >= HUGE) {
        unmap(b, size);
    } else {
        give_back_pages(b, size);
        b->next = heap.hollow[oldest];
        heap.hollow[oldest] = b;
    }
    return 1;
}

void nn_free(void *p, size_t bytes)
{
    if (!p) return;
    size_t size;
    int c = class_of(bytes, &size);
    pthread_mutex_lock(&heap.lock);
    account(-(int64_t)size);
    ((block *)p)->next = heap.freed[c];
    heap.freed[c] = p;
    heap.cached += (int64_t)size;
    heap.used_at[c] = ++heap.clock;
    int64_t keep = heap.peak > NN_KEEP_BYTES ? heap.peak : NN_KEEP_BYTES;
    while (heap.cached > keep && drop_oldest()) {
    }
    pthread_mutex_unlock(&heap.lock);
}

/* Returns what is cached to the system, but for blocks too small for a page of their own. */
void nn_empty_cache(void)
{
    pthread_mutex_lock(&heap.lock);
    while (drop_oldest()) {
    }
    pthread_mutex_unlock(&heap.lock);
}

#endif

void nn_memory_stats(int64_t *in_use, int64_t *peak, int64_t *cached)
{
    pthread_mutex_lock(&heap.lock);
    *in_use = heap.in_use;
    *peak = heap.peak;
    *cached = heap.cached;
    pthread_mutex_unlock(&heap.lock);
}

void nn_memory_reset_peak(void)
{
    pthread_mutex_lock(&heap.lock);
    heap.peak = heap.in_use;
    pthread_mutex_unlock(&heap.lock);
}

/* A fork must not find the heap locked by a thread that the child does not have. */
static void lock_heap(void) { pthread_mutex_lock(&heap.lock); }
static void unlock_heap(void) { pthread_mutex_unlock(&heap.lock); }
__attribute__((constructor)) static void at_load(void) { pthread_atfork(lock_heap, unlock_heap, unlock_heap); }
