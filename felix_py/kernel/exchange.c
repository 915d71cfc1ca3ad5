/*
 * Questions to the kernel with their answers, each one call of Python's: its lock is let go once, and not with every
 * system call, after each of which a busy interpreter keeps a thread waiting. roundtrip.py calls these functions, and
 * has the same in Python. No allocation, no state.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
    NETLINK_FAMILY = 16, ROUTE = 0, SOL_OF_NETLINK = 270, EXTENDED_ANSWERS = 11, /* linux/netlink.h */
    SMALLEST_ROOM = 32768, /* the kernel fills at most so much at once, net/netlink/af_netlink.c */
};

/* struct nlmsghdr */
struct message {
    uint32_t length;
    uint16_t type, flags;
    uint32_t sequence, port;
};

/* Send messages and receive whatever comes, up to an answer to the message of this number.
 * Returns how many bytes came, messages one behind the other as if in one datagram, or -errno. */
long exchange(int sock, const void *asked, size_t length, uint32_t last, unsigned char *answers, size_t room)
{
    size_t used = 0;

    if (send(sock, asked, length, 0) < 0)
        return -errno;
    for (;;) {
        size_t end, at = used;
        ssize_t came;

        if (room - used < SMALLEST_ROOM)
            return -ENOBUFS;
        came = recv(sock, answers + used, room - used, 0);
        if (came < 0 && errno == EINTR)
            continue;
        if (came < 0)
            return -errno;
        end = used + (size_t)came;
        used = (end + 3) & ~(size_t)3;
        while (at + sizeof(struct message) <= end) {
            struct message head;

            memcpy(&head, answers + at, sizeof head);
            if (head.sequence == last)
                return (long)used;
            if (head.length < sizeof head)
                return -EPROTO;
            at += (head.length + 3) & ~(size_t)3;
        }
    }
}

/* Write files, each a path and a value, as strings one behind the other up to an empty one; one that is not there is
 * passed over. Returns 0, or -errno of the one with the number `which`. */
static long write_files(const char *files, int *which)
{
    for (*which = 0; *files != '\0'; ++*which) {
        const char *value = files + strlen(files) + 1;
        int file = open(files, O_WRONLY | O_CLOEXEC);

        if (file < 0 && errno != ENOENT)
            return -errno;
        if (file >= 0) {
            ssize_t written = write(file, value, strlen(value));
            int code = errno;

            close(file);
            if (written < 0)
                return -code;
        }
        files = value + strlen(value) + 1;
    }
    return 0;
}

enum step { HERE, ENTER, THERE, OPEN, EXCHANGE, RETURN };

/* What became of it: which step came last, which of its files, and the socket there. */
struct outcome {
    int32_t step, file, sock;
};

/* Write files, enter a network namespace, write files there, exchange messages on a socket of that namespace, come back.
 *
 * Returns as `exchange` does; the socket is left open then, and only then. Where the last step is RETURN the thread is
 * still in the other namespace. */
long exchange_inside(int home, int namespace, const char *here, const char *there, const void *asked, size_t length,
                     uint32_t last, long seconds, unsigned char *answers, size_t room, struct outcome *outcome)
{
    const struct timeval patience = {.tv_sec = seconds};
    const int yes = 1;
    long found;
    int file = 0;

    outcome->sock = -1;
    outcome->step = HERE;
    found = write_files(here, &file);
    outcome->file = file;
    if (found < 0)
        return found;
    outcome->step = ENTER;
    if (setns(namespace, CLONE_NEWNET) != 0)
        return -errno;
    outcome->step = THERE;
    found = write_files(there, &file);
    outcome->file = file;
    if (found == 0) {
        outcome->step = OPEN;
        outcome->sock = socket(NETLINK_FAMILY, SOCK_RAW | SOCK_CLOEXEC, ROUTE);
        found = outcome->sock < 0 ? -errno : 0;
    }
    if (found == 0 && (setsockopt(outcome->sock, SOL_OF_NETLINK, EXTENDED_ANSWERS, &yes, sizeof yes) != 0 ||
                       setsockopt(outcome->sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0))
        found = -errno;
    if (setns(home, CLONE_NEWNET) != 0) {
        outcome->step = RETURN;
        return -errno;
    }
    if (found == 0) {
        outcome->step = EXCHANGE;
        found = exchange(outcome->sock, asked, length, last, answers, room);
    }
    if (found < 0 && outcome->sock >= 0) {
        close(outcome->sock);
        outcome->sock = -1;
    }
    return found;
}
