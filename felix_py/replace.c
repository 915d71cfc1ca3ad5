/*
 * A file replaced durably, if it still begins as expected: one call of Python's, whose lock is let go once and not with
 * each of some fifteen system calls, after which a busy interpreter keeps a thread waiting. durable.py calls this, and
 * does the same in Python where it was not compiled. No allocation, no state.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LONGEST_BEGINNING = 64 };

static int lock_file(const char *path)
{
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

    while (file >= 0 && flock(file, LOCK_EX) != 0) {
        if (errno == EINTR)
            continue;
        close(file);
        return -1;
    }
    return file;
}

static bool begins(const char *path, const char *beginning, size_t length)
{
    char found[LONGEST_BEGINNING];
    ssize_t count;
    int file;

    if (length > sizeof found)
        return false;
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    count = read(file, found, length);
    close(file);
    return count == (ssize_t)length && memcmp(found, beginning, length) == 0;
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

/* Have these contents in a new file, on disk. */
static bool write_file(const char *path, const char *data, size_t length, mode_t mode)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool done;

    if (file < 0)
        return false;
    done = fchmod(file, mode) == 0 && write_all(file, data, length) && fsync(file) == 0;
    return close(file) == 0 && done;
}

/* Put the entries of a folder on disk; 0, or -errno. */
static long sync_folder(const char *path)
{
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    long found = 0;

    if (folder < 0)
        return -errno;
    if (fsync(folder) != 0)
        found = -errno;
    close(folder);
    return found;
}

/* Replace a file that begins so, with the lock held that all who change it hold; `temporary` lies in the same folder.
 *
 * Returns 0 where it was replaced and that is on disk; 1 where it stands as it was, for whatever reason; -errno where it
 * was replaced, and a power cut may bring the old one back. */
long replace_if(const char *lock, const char *path, const char *temporary, const char *folder, const char *beginning,
                size_t expected, const char *data, size_t length, unsigned mode)
{
    int held = lock_file(lock);
    long found = 1;

    if (held < 0)
        return 1;
    if (begins(path, beginning, expected)) {
        if (write_file(temporary, data, length, (mode_t)mode) && rename(temporary, path) == 0)
            found = sync_folder(folder);
        else
            unlink(temporary);
    }
    close(held);
    return found;
}
