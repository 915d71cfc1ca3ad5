/*
 * A file that is kept in two copies, changed: the older copy is overwritten and is the newer one then. One call of
 * Python's, whose lock is let go once and not with each of some ten system calls, after which a busy interpreter keeps a
 * thread waiting. durable.py calls this, datastore/swaps.py says what it is for. No allocation, no state.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { LONGEST_BEGINNING = 128, MODE = 0644 };

static int lock_file(const char *path)
{
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, MODE);

    while (file >= 0 && flock(file, LOCK_EX) != 0) {
        if (errno == EINTR)
            continue;
        close(file);
        return -1;
    }
    return file;
}

static bool begins(int file, const char *beginning, size_t length)
{
    char found[LONGEST_BEGINNING];

    return length <= sizeof found && pread(file, found, length, 0) == (ssize_t)length &&
           memcmp(found, beginning, length) == 0;
}

static bool path_begins(const char *path, const char *beginning, size_t length)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    bool found;

    if (file < 0)
        return false;
    found = begins(file, beginning, length);
    close(file);
    return found;
}

static bool write_all(int file, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t count = write(file, data, length);

        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return false;
        data += count;
        length -= (size_t)count;
    }
    return true;
}

static bool sync_folder(const char *path)
{
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool done;

    if (folder < 0)
        return false;
    done = fsync(folder) == 0;
    close(folder);
    return done;
}

/* Open the older copy if it begins so; where there shall be none (`length` 0) a new one. */
static int open_older(const char *path, const char *beginning, size_t length)
{
    int file;
    bool usable;

    if (length == 0)
        file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, MODE);
    else
        file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return -1;
    usable = length == 0 ? fchmod(file, MODE) == 0 : begins(file, beginning, length);
    if (!usable) {
        close(file);
        return -1;
    }
    return file;
}

/* Through a network, another node may still see what was there before, and overwrite what is newest; there a new file
 * takes the place of the older copy, which the caller does. The numbers are those of linux/magic.h. */
static bool lies_on_this_machine(int file)
{
    struct statfs found;

    if (fstatfs(file, &found) != 0)
        return false;
    switch ((unsigned long)found.f_type) {
    case 0xef53:     /* ext4 */
    case 0x58465342: /* xfs */
    case 0x9123683e: /* btrfs */
    case 0xf2f52010: /* f2fs */
    case 0x2fc12fc1: /* zfs */
    case 0x01021994: /* tmpfs */
    case 0x794c7630: /* overlayfs */
        return true;
    }
    return false;
}

/* See that there is room, before anything is overwritten; a file system that cannot say so finds out by writing. One that
 * is longer than its writer knows was left so by somebody who died. */
static bool make_room(int file, size_t length)
{
    struct stat now;

    if (fstat(file, &now) != 0)
        return false;
    if ((size_t)now.st_size > length)
        return false;
    if ((size_t)now.st_size == length || fallocate(file, 0, 0, (off_t)length) == 0 || errno == EOPNOTSUPP)
        return true;
    (void)!ftruncate(file, now.st_size);
    return false;
}

/* Put on disk what somebody may have died over who wrote the newer copy: nothing else is left while the older one is
 * overwritten. */
static bool sync_newer(const char *newer, const char *folder)
{
    int file = open(newer, O_RDONLY | O_CLOEXEC);
    bool done;

    if (file < 0)
        return false;
    done = fdatasync(file) == 0 && sync_folder(folder);
    close(file);
    return done;
}

/* What was not put on disk nobody may take for what stands there: the other copy does, as before. 0, or -errno. */
static long overwrite(const char *path, int file, const char *folder, const char *data, size_t length)
{
    long found;

    if (write_all(file, data, length) && fdatasync(file) == 0 && (folder == NULL || sync_folder(folder)))
        return 0;
    found = errno != 0 ? -errno : -EIO;
    unlink(path);
    return found;
}

/* Overwrite the older copy, with the lock held that all who change the file hold, if both begin as expected.
 *
 * What is on disk then needs no more than one sync of data that lies where it lay; `unsure` of the newer copy one makes
 * sure of that first. Returns 0 where that was done; 1 where nothing was; -errno where the older copy was begun with and is
 * gone, and the newer one stands. */
long overwrite_older(const char *lock, const char *newer, const char *newer_begins, size_t newer_length,
                     const char *older, const char *older_begins, size_t older_length, const char *folder, int unsure,
                     const char *data, size_t length)
{
    int held = lock_file(lock), file;
    long found = 1;

    if (held < 0)
        return 1;
    if (path_begins(newer, newer_begins, newer_length)) {
        file = open_older(older, older_begins, older_length);
        if (file >= 0) {
            if (lies_on_this_machine(file) && make_room(file, length) && (!unsure || sync_newer(newer, folder)))
                found = overwrite(older, file, older_length == 0 ? folder : NULL, data, length);
            close(file);
            if (found == 1 && older_length == 0)
                unlink(older);
        }
    }
    close(held);
    return found;
}
