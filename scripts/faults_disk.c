/* Loaded with LD_PRELOAD by scripts/faults disk: makes the Nth call of a kind fail, if it is for a
 * file under one of some folders. Until faults_arm is called, every call is passed on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum call { WRITE, FSYNC, RENAME, OPEN, MKDIR, UNLINK, FLOCK, FTRUNCATE, CALLS };

static char folders[4][PATH_MAX];
static atomic_long counts[CALLS];
static atomic_int armed;
static enum call failing;
static int stays, error_number; /* error_number 0: the process is killed instead */
static long which;

/* Count the calls for files under `where` (folders, joined by colons), and let call number `n` of
 * kind `call` fail with `error`; with `and_later`, all later ones, too. n = 0 only counts. */
void faults_arm(const char *where, int call, long n, int error, int and_later) {
    char copy[4 * PATH_MAX], *rest = copy;
    snprintf(copy, sizeof copy, "%s", where);
    for (int i = 0; i < 4; i++) {
        char *folder = strsep(&rest, ":");
        snprintf(folders[i], PATH_MAX, "%s", folder ? folder : "");
    }
    for (int i = 0; i < CALLS; i++) counts[i] = 0;
    failing = call, which = n, error_number = error, stays = and_later;
    armed = 1;
}

long faults_count(int call) { return counts[call]; }

static int is_within(const char *path) {
    for (int i = 0; i < 4; i++) {
        size_t length = strlen(folders[i]);
        if (length && !strncmp(path, folders[i], length) &&
            (path[length] == '/' || path[length] == 0))
            return 1;
    }
    return 0;
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return length > 0;
}

/* Whether this call is to fail; errno is set then. */
static int fails(enum call call, const char *path) {
    if (!is_within(path)) return 0;
    long number = ++counts[call];
    if (call != failing || !which || number < which || (number > which && !stays)) return 0;
    if (!error_number) kill(getpid(), SIGKILL), pause();
    errno = error_number;
    return 1;
}

static int fd_fails(enum call call, int fd) {
    char path[PATH_MAX];
    return armed && path_of(fd, path) && fails(call, path);
}

static int path_fails(enum call call, int folder, const char *name) {
    char path[2 * PATH_MAX], from[PATH_MAX] = "";
    if (!armed) return 0;
    if (name[0] != '/') {
        if (folder == AT_FDCWD ? !getcwd(from, sizeof from) : !path_of(folder, from)) return 0;
        strcat(from, "/");
    }
    snprintf(path, sizeof path, "%s%s", from, name);
    return fails(call, path);
}

#define NEXT(name) __typeof__(&name) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define ON_FD(type, name, call, declared, ...)          \
    type name declared {                                \
        NEXT(name);                                     \
        if (fd_fails(call, fd)) return -1;              \
        return next(__VA_ARGS__);                       \
    }
#define ON_PATH(name, call, folder, declared, ...)      \
    int name declared {                                 \
        NEXT(name);                                     \
        if (path_fails(call, folder, path)) return -1;  \
        return next(__VA_ARGS__);                       \
    }
#define OPENS(name, folder, declared, ...)              \
    int name declared {                                 \
        va_list more;                                   \
        va_start(more, flags);                          \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                   \
        NEXT(name);                                     \
        if (path_fails(OPEN, folder, path)) return -1;  \
        return next(__VA_ARGS__, mode);                 \
    }

int flock(int, int);

ON_FD(ssize_t, write, WRITE, (int fd, const void *data, size_t size), fd, data, size)
ON_FD(ssize_t, pwrite, WRITE, (int fd, const void *data, size_t size, off_t at), fd, data, size, at)
ON_FD(ssize_t, pwrite64, WRITE, (int fd, const void *data, size_t size, off64_t at), fd, data, size,
      at)
ON_FD(ssize_t, writev, WRITE, (int fd, const struct iovec *data, int n), fd, data, n)
ON_FD(int, fsync, FSYNC, (int fd), fd)
ON_FD(int, fdatasync, FSYNC, (int fd), fd)
ON_FD(int, flock, FLOCK, (int fd, int how), fd, how)
ON_FD(int, ftruncate, FTRUNCATE, (int fd, off_t size), fd, size)
ON_FD(int, ftruncate64, FTRUNCATE, (int fd, off64_t size), fd, size)
ON_PATH(rename, RENAME, AT_FDCWD, (const char *path, const char *to), path, to)
ON_PATH(renameat, RENAME, folder, (int folder, const char *path, int there, const char *to), folder,
        path, there, to)
ON_PATH(mkdir, MKDIR, AT_FDCWD, (const char *path, mode_t mode), path, mode)
ON_PATH(mkdirat, MKDIR, folder, (int folder, const char *path, mode_t mode), folder, path, mode)
ON_PATH(unlink, UNLINK, AT_FDCWD, (const char *path), path)
ON_PATH(unlinkat, UNLINK, folder, (int folder, const char *path, int flags), folder, path, flags)
ON_PATH(rmdir, UNLINK, AT_FDCWD, (const char *path), path)
OPENS(open, AT_FDCWD, (const char *path, int flags, ...), path, flags)
OPENS(open64, AT_FDCWD, (const char *path, int flags, ...), path, flags)
OPENS(openat, folder, (int folder, const char *path, int flags, ...), folder, path, flags)
OPENS(openat64, folder, (int folder, const char *path, int flags, ...), folder, path, flags)
