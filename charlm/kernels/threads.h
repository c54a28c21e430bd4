/* Threads, which are OpenMP's: PyTorch uses them, too, so no others are made, or left spinning. */

#include <omp.h>
#include <stddef.h>

/* Work of which each of `of` threads does its part, as number `me`. */
typedef void Work(const void *job, int me, int of);

/* What a thread does before its work, and after. */
typedef void Chore(void);

static inline void on_threads(int threads, Chore *before, Chore *after, Work *work,
                              const void *job) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    if (before) before();
    work(job, omp_get_thread_num(), omp_get_num_threads());
    if (after) after();
  }
}

/* Wait until all threads are here. */
static inline void meet(void) {
#pragma omp barrier
}
