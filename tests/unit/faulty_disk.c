/* Preloaded: lets one call of the disk fail, or all from one on. `fault(at, error, stay)`: the at-th call from now, 1 = the next. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/types.h>
#include <sys/uio.h>

static long left = 0, count = 0;
static int error = 0, stay = 0;

void fault(long at, int number, int stays) { left = at; error = number; stay = stays; count = 0; }
long faults_counted(void) { return count; }

static int fails(void) {
    count++;
    if (left <= 0) return 0;
    if (left > 1) { left--; return 0; }
    if (!stay) left = 0;
    errno = error;
    return 1;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)

ssize_t pwrite64(int fd, const void *from, size_t size, off64_t at) { REAL(pwrite64); return fails() ? -1 : real(fd, from, size, at); }
ssize_t pwrite(int fd, const void *from, size_t size, off_t at) { REAL(pwrite); return fails() ? -1 : real(fd, from, size, at); }
ssize_t pwritev64(int fd, const struct iovec *from, int parts, off64_t at) { REAL(pwritev64); return fails() ? -1 : real(fd, from, parts, at); }
ssize_t pwritev64v2(int fd, const struct iovec *from, int parts, off64_t at, int flags) { REAL(pwritev64v2); return fails() ? -1 : real(fd, from, parts, at, flags); }
int fsync(int fd) { REAL(fsync); return fails() ? -1 : real(fd); }
int fdatasync(int fd) { REAL(fdatasync); return fails() ? -1 : real(fd); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); return fails() ? -1 : real(fd, size); }
int posix_fallocate64(int fd, off64_t at, off64_t size) { REAL(posix_fallocate64); return fails() ? error : real(fd, at, size); }
