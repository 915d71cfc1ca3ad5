/*
 * Callers let in and sent away, all that are there in one call of Python's each: its lock is let go once, and not with
 * every system call, after each of which a busy interpreter keeps a thread waiting. arrivals.py calls these functions,
 * and has the same in Python. No allocation, no state.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DESCRIPTORS = 4 }; /* that may come with a call; the kernel closes more of one message, and we those of others */

/* A caller, and what it sent. */
struct arrival {
    int32_t connection;
    int32_t whole; /* all of its half of the stream was read */
    int32_t count; /* of descriptors that came */
    int32_t descriptors[DESCRIPTORS];
    int32_t unused;
    uint64_t at, length; /* where its bytes are */
};

static void keep_descriptors(struct arrival *arrival, struct msghdr *message)
{
    for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each != NULL; each = CMSG_NXTHDR(message, each)) {
        size_t bytes = each->cmsg_len - CMSG_LEN(0);

        if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t at = 0; at + sizeof(int) <= bytes; at += sizeof(int)) {
            int descriptor;

            memcpy(&descriptor, CMSG_DATA(each) + at, sizeof descriptor);
            if (arrival->count < DESCRIPTORS)
                arrival->descriptors[arrival->count++] = descriptor;
            else
                close(descriptor);
        }
    }
}

/* Read what a caller sends, to the end of its half; up to so many bytes, and as long as it does not lag behind. */
static void read_call(struct arrival *arrival, unsigned char *room, size_t size, int haste, int often)
{
    while (arrival->length < size) {
        union {
            struct cmsghdr header;
            char space[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
        } control;
        struct iovec piece = {room + arrival->length, size - arrival->length};
        struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
        ssize_t came;

        message.msg_control = control.space;
        message.msg_controllen = sizeof control.space;
        came = recvmsg(arrival->connection, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (came < 0 && errno == EINTR)
            continue;
        if (came < 0) {
            struct pollfd lagging = {.fd = arrival->connection, .events = POLLIN};

            if (errno != EAGAIN || often-- == 0)
                return;
            poll(&lagging, 1, haste);
            continue;
        }
        keep_descriptors(arrival, &message);
        if (came == 0) {
            arrival->whole = 1;
            return;
        }
        arrival->length += (size_t)came;
    }
}

/* Wait for somebody to come, or the bell to ring, for so many milliseconds at most or for ever (-1); accept whoever has
 * come, and read what they send; each is waited for `often` times for so many milliseconds at most.
 * Returns how many there are, or -errno of the first. */
int let_in(int listener, int bell, int patience, struct arrival *arrivals, int most, unsigned char *room, size_t size,
           int haste, int often)
{
    struct pollfd news[] = {{.fd = listener, .events = POLLIN}, {.fd = bell, .events = POLLIN}};
    size_t used = 0;
    int number;

    if (poll(news, 2, patience) <= 0 || news[1].revents != 0)
        return 0;
    for (number = 0; number < most; number++) {
        struct arrival *arrival = &arrivals[number];
        int connection;

        do
            connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        while (connection < 0 && (errno == EINTR || errno == ECONNABORTED));
        if (connection < 0)
            return number > 0 || errno == EAGAIN ? number : -errno;
        *arrival = (struct arrival){.connection = connection, .at = used};
        read_call(arrival, room + used, size - used, haste, often);
        used += arrival->length;
    }
    return number;
}

/* A caller, and its answer. */
struct departure {
    int32_t connection;
    int32_t count; /* of descriptors */
    int32_t descriptors[DESCRIPTORS];
    const void *answer;
    uint64_t length;
    uint64_t sent; /* what it took of it; where that is all, everything here is closed */
};

/* Answer callers without waiting for any. */
void answer_all(struct departure *departures, int count)
{
    for (int number = 0; number < count; number++) {
        struct departure *each = &departures[number];
        ssize_t sent = send(each->connection, each->answer, each->length, MSG_NOSIGNAL | MSG_DONTWAIT);

        each->sent = sent < 0 ? 0 : (uint64_t)sent;
        if (each->sent < each->length)
            continue;
        close(each->connection);
        for (int one = 0; one < each->count; one++)
            close(each->descriptors[one]);
    }
}
