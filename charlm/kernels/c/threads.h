/* Threads by the OpenMP library that PyTorch uses, so that no others are started or left waiting.

   The compiler has no part in this, and not all can: `use_openmp` gets the library's functions, by
   which GCC's code calls it; LLVM's library has them too. Without them there is one thread. */

#include <stddef.h>
#include <string.h>

#ifdef __linux__
#include <sched.h>
#endif

static struct {
  void (*parallel)(void (*part)(void *), void *data, unsigned threads, unsigned flags);
  void (*barrier)(void);
  int (*thread_num)(void), (*num_threads)(void);
} openmp;

/* Take GOMP_parallel, GOMP_barrier, omp_get_thread_num and omp_get_num_threads. */
void use_openmp(void *const functions[4]) { memcpy(&openmp, functions, sizeof openmp); }

/* Work of which each of `of` threads does its part, as number `me`. */
typedef void Work(const void *job, int me, int of);

/* What a thread does before its work, and after. */
typedef void Chore(void);

/* Numbers [from, to) of `count`: the part of thread `me`, in whole units of `unit`. */
static inline void share(size_t count, size_t unit, int me, int of, size_t *from, size_t *to) {
  const size_t units = (count + unit - 1) / unit;
  *from = units * (size_t)me / (size_t)of * unit;
  *to = units * (size_t)(me + 1) / (size_t)of * unit;
  if (*to > count) *to = count;
}

/* Wait until all `of` threads that share the work are here. */
static inline void barrier(int of) {
  if (of > 1) openmp.barrier();
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

typedef struct {
  Chore *before, *after;
  Work *work;
  const void *job;
} Call;

static void do_part(const Call *call, int me, int of) {
  if (of > 1) spread(me);
  if (call->before) call->before();
  call->work(call->job, me, of);
  if (call->after) call->after();
}

static void do_own_part(void *call) { do_part(call, openmp.thread_num(), openmp.num_threads()); }

/* Call `work` in `threads` threads, or in fewer if there are not so many. */
static inline void on_threads(int threads, Chore *before, Chore *after, Work *work,
                              const void *job) {
  Call call = {before, after, work, job};
  if (threads > 1 && openmp.parallel) openmp.parallel(do_own_part, &call, (unsigned)threads, 0);
  else do_part(&call, 0, 1);
}
