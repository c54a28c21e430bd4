/* Threads, which are OpenMP's: PyTorch uses them, too, so no others are made, or left spinning. */

#include <omp.h>
#include <sched.h>
#include <stddef.h>

/* Work of which each of `of` threads does its part, as number `me`. */
typedef void Work(const void *job, int me, int of);

/* What a thread does before its work, and after. */
typedef void Chore(void);

/* Wait until all `of` threads that share the work are here. */
static inline void meet(int of) {
  if (of == 1) return;
#pragma omp barrier
}

/* Have no two threads on one CPU. A system may wake a thread where the one that wakes it runs, and
   leave it there: then one waits for the other with all its might, and keeps it from running. */
static inline void spread(int me) {
#ifdef __linux__
  enum { MOST = 64 };
  static int cpus[MOST]; /* where each thread was when it last came by: a hint, read without care */
  if (me >= MOST) return;
  const int here = sched_getcpu();
  cpu_set_t allowed, others;
  for (int i = 0; i < me; i++)
    if (cpus[i] == here && sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
      others = allowed;
      for (int k = 0; k < me; k++)
        if (cpus[k] >= 0) CPU_CLR((size_t)cpus[k], &others);
      if (CPU_COUNT(&others) && sched_setaffinity(0, sizeof others, &others) == 0)
        sched_setaffinity(0, sizeof allowed, &allowed); /* it stays where it is now */
      break;
    }
  cpus[me] = sched_getcpu();
#else
  (void)me;
#endif
}

static inline void on_threads(int threads, Chore *before, Chore *after, Work *work,
                              const void *job) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const int me = omp_get_thread_num(), of = omp_get_num_threads();
    if (of > 1) spread(me);
    if (before) before();
    work(job, me, of);
    if (after) after();
  }
}
