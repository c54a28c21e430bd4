/* Threads by OpenMP. PyTorch uses the same ones, so no others are started or left waiting. A
   compiler without OpenMP gives one thread. */

#include <stddef.h>

#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __linux__
#include <sched.h>
#endif

/* Work of which each of `of` threads does its part, as number `me`. */
typedef void Work(const void *job, int me, int of);

/* What a thread does before its work, and after. */
typedef void Chore(void);

/* Wait until all `of` threads that share the work are here. */
static inline void barrier(int of) {
  if (of == 1) return;
#ifdef _OPENMP
#pragma omp barrier
#endif
}

/* Have no two threads on one CPU. A system may wake a thread on the CPU of the one that wakes it,
   and leave it there. Then one waits at a barrier for the other and keeps it from running. */
static inline void spread(int me) {
#ifdef __linux__
  enum { MOST = 64 };
  static int cpus[MOST]; /* where each thread ran when it last called this: a hint, not exact */
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

/* Call `work` in `threads` threads, or in fewer if there are not so many. */
static inline void on_threads(int threads, Chore *before, Chore *after, Work *work,
                              const void *job) {
#ifdef _OPENMP
#pragma omp parallel num_threads(threads) if (threads > 1)
#endif
  {
#ifdef _OPENMP
    const int me = omp_get_thread_num(), of = omp_get_num_threads();
#else
    const int me = 0, of = 1;
    (void)threads;
#endif
    if (of > 1) spread(me);
    if (before) before();
    work(job, me, of);
    if (after) after();
  }
}
