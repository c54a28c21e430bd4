/* Threads by the OpenMP library that PyTorch uses, so that no others are started or left waiting.

   The code is compiled without -fopenmp, which some compilers do not have. Instead, `use_openmp`
   gets the functions that GCC's code calls; LLVM's library has them too. Without them there is one
   thread. */

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

/* The work of one thread: number `thread`, from 0, of `threads`. */
typedef void Work(const void *job, int thread, int threads);

/* Called in each thread before its work, and after. */
typedef void Hook(void);

/* Numbers [from, to) of `count`: the part of thread `thread`, in whole units of `unit`. */
static inline void partition(size_t count, size_t unit, int thread, int threads, size_t *from,
                             size_t *to) {
  const size_t units = (count + unit - 1) / unit;
  *from = units * (size_t)thread / (size_t)threads * unit;
  *to = units * (size_t)(thread + 1) / (size_t)threads * unit;
  if (*to > count) *to = count;
}

/* Wait until all `threads` threads have called this. */
static inline void barrier(int threads) {
  if (threads > 1) openmp.barrier();
}

/* Move this thread to a CPU that no other thread uses. The system may wake a thread on the CPU of
   the thread that wakes it, and leave it there. Then one of them waits at a barrier for the other,
   and keeps it from running. */
static inline void use_own_cpu(int thread) {
#ifdef __linux__
  enum { MOST = 64 };
  static int cpus[MOST]; /* where each thread ran when it last called this: a hint, not exact */
  if (thread >= MOST) return;
  const int here = sched_getcpu();
  cpu_set_t allowed, others;
  for (int i = 0; i < thread; i++)
    if (cpus[i] == here && sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
      others = allowed;
      for (int k = 0; k < thread; k++)
        if (cpus[k] >= 0) CPU_CLR((size_t)cpus[k], &others);
      if (CPU_COUNT(&others) && sched_setaffinity(0, sizeof others, &others) == 0)
        sched_setaffinity(0, sizeof allowed, &allowed); /* the thread stays where it is now */
      break;
    }
  cpus[thread] = sched_getcpu();
#else
  (void)thread;
#endif
}

typedef struct {
  Hook *before, *after;
  Work *work;
  const void *job;
} Call;

static void do_part(const Call *call, int thread, int threads) {
  if (threads > 1) use_own_cpu(thread);
  if (call->before) call->before();
  call->work(call->job, thread, threads);
  if (call->after) call->after();
}

static void do_own_part(void *call) { do_part(call, openmp.thread_num(), openmp.num_threads()); }

/* Call `work` in at most `threads` threads. */
static inline void on_threads(int threads, Hook *before, Hook *after, Work *work,
                              const void *job) {
  Call call = {before, after, work, job};
  if (threads > 1 && openmp.parallel) openmp.parallel(do_own_part, &call, (unsigned)threads, 0);
  else do_part(&call, 0, 1);
}
