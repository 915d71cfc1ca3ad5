/*
 * Questions to the kernel with their answers, each one call of Python's: its lock is let go once, and not with every
 * system call, after each of which a busy interpreter keeps a thread waiting. roundtrip.py calls these functions, and
 * has the same in Python. No allocation, no state.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

enum {
    NETLINK_FAMILY = 16, ROUTE = 0, SOL_OF_NETLINK = 270, EXTENDED_ANSWERS = 11, ERROR = 2, /* linux/netlink.h */
    KIND_OF_NAMESPACE = 0xB703, /* NS_GET_NSTYPE of linux/nsfs.h */
    ASK_DRIVER = 0x8946, GET_LINK = 0x0a, /* SIOCETHTOOL of linux/sockios.h, ETHTOOL_GLINK of linux/ethtool.h */
    CONTEXT_CLOEXEC = 1, CREATE_FILE_SYSTEM = 6, MOUNT_CLOEXEC = 1, /* linux/mount.h */
    DATAGRAM = 65536, /* of events; the kernel never cuts a message in two */
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

/* Receive up to so many datagrams that are there, without waiting. Returns how many bytes came, messages one behind the
 * other; `code` is 0 where there may be more, else EAGAIN or what went wrong after them. */
long receive_all(int sock, int most, unsigned char *room, size_t size, int *code)
{
    size_t used = 0;

    for (*code = 0; most > 0 && size - used >= DATAGRAM; most--) {
        ssize_t came = recv(sock, room + used, size - used, MSG_DONTWAIT);

        if (came < 0 && errno == EINTR)
            continue;
        if (came < 0) {
            *code = errno;
            break;
        }
        used += ((size_t)came + 3) & ~(size_t)3;
    }
    return (long)used;
}

/* Mount a procfs of one's own that nobody else sees (fsmount(2), Linux 5.8): it goes when its descriptor is closed.
 * Returns that, or -errno. */
int own_procfs(void)
{
    int found, code, context = (int)syscall(SYS_fsopen, "proc", CONTEXT_CLOEXEC);

    if (context < 0)
        return -errno;
    found = syscall(SYS_fsconfig, context, CREATE_FILE_SYSTEM, NULL, NULL, 0) != 0
                ? -1
                : (int)syscall(SYS_fsmount, context, MOUNT_CLOEXEC, 0);
    code = errno;
    close(context);
    return found < 0 ? -code : found;
}

/* Write files, each a path and a value, as strings one behind the other up to an empty one; one that is not there is
 * passed over. Those below /proc are looked for in a procfs, where there is one. Returns 0, or -errno of the one with
 * the number `which`. */
static long write_files(int procfs, const char *files, int *which)
{
    static const char proc[] = "/proc/";

    for (*which = 0; *files != '\0'; ++*which) {
        const char *value = files + strlen(files) + 1;
        const int own = procfs >= 0 && strncmp(files, proc, sizeof proc - 1) == 0;
        int file = openat(own ? procfs : AT_FDCWD, own ? files + sizeof proc - 1 : files, O_WRONLY | O_CLOEXEC);

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

/* Say how many of these interfaces, names as strings up to an empty one, carry no packets. From Linux 6.8 on the first
 * question has the kernel take note of a carrier that it has just been told of (ethtool_op_get_link). */
static int count_idle(int sock, const char *devices)
{
    int idle = 0;

    for (; *devices != '\0'; devices += strlen(devices) + 1) {
        struct { uint32_t command, data; } link = {.command = GET_LINK}; /* struct ethtool_value */
        struct ifreq asked = {0};

        strncpy(asked.ifr_name, devices, sizeof asked.ifr_name - 1);
        asked.ifr_data = (void *)&link;
        ioctl(sock, ASK_DRIVER, &asked);
        idle += ioctl(sock, SIOCGIFFLAGS, &asked) != 0 || (asked.ifr_flags & IFF_RUNNING) == 0;
    }
    return idle;
}

enum step { HERE, ENTER, THERE, OPEN, EXCHANGE, RETURN };

/* What became of it: which step came last, and which of its files. */
struct outcome {
    int32_t step, file;
};

/* Open a socket for `exchange` in the namespace of this thread. Returns its descriptor, or -errno. */
static int open_socket(long seconds)
{
    const struct timeval patience = {.tv_sec = seconds};
    const int yes = 1;
    int sock = socket(NETLINK_FAMILY, SOCK_RAW | SOCK_CLOEXEC, ROUTE);

    if (sock < 0)
        return -errno;
    if (setsockopt(sock, SOL_OF_NETLINK, EXTENDED_ANSWERS, &yes, sizeof yes) != 0 ||
        setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0) {
        int code = errno;

        close(sock);
        return -code;
    }
    return sock;
}

/* Write files, enter a network namespace, write files there, come back, and exchange messages on a socket that was
 * opened there; it is kept, or -1 is, where that was refused.
 *
 * Returns as `exchange` does. Where the last step is RETURN the thread is still in the other namespace. */
static long exchange_inside(int home, int procfs, int namespace, const char *here, const char *there,
                            const void *asked, size_t length, uint32_t last, long seconds, unsigned char *answers,
                            size_t room, int32_t *kept, struct outcome *outcome)
{
    long found;
    int file = 0, sock = -1;

    *kept = -1;
    outcome->step = HERE;
    found = write_files(-1, here, &file);
    outcome->file = file;
    if (found < 0)
        return found;
    outcome->step = ENTER;
    if (setns(namespace, CLONE_NEWNET) != 0)
        return -errno;
    outcome->step = THERE;
    found = write_files(procfs, there, &file);
    outcome->file = file;
    if (found == 0) {
        outcome->step = OPEN;
        sock = open_socket(seconds);
        found = sock < 0 ? sock : 0;
    }
    if (setns(home, CLONE_NEWNET) != 0) {
        found = -errno;
        outcome->step = RETURN;
    } else if (found == 0) {
        outcome->step = EXCHANGE;
        found = exchange(sock, asked, length, last, answers, room);
    }
    if (sock >= 0 && found < 0)
        close(sock);
    else
        *kept = sock;
    return found;
}

/* An exchange of several, and what became of it. */
struct job {
    int32_t sock;      /* to exchange on; -1: on a new one inside `namespace` */
    int32_t namespace;
    uint32_t last;
    uint32_t here, there;    /* where these begin in the text of all jobs: files, for a namespace only */
    uint32_t devices, asked; /* and these: interfaces that are looked at when all jobs are done; messages */
    uint32_t length;         /* of the messages */
    int32_t seconds;
    int32_t kept; /* the socket inside `namespace`, until then */
    /* what became of it: */
    int32_t well;  /* answers came, and no refusal among them */
    int32_t idle;  /* so many of its interfaces carried no packets */
    int64_t found; /* bytes of answers, or -errno; -ECANCELED where answers may still come on its socket */
    uint64_t at;   /* where its answers begin */
    struct outcome outcome;
};

/* Say whether answers are whole messages, and none of them a refusal. */
static int are_well(const unsigned char *answers, long length)
{
    const unsigned char *end = answers + (length > 0 ? length : 0);
    struct message head;
    int32_t code;

    for (; (size_t)(end - answers) >= sizeof head + sizeof code; answers += (head.length + 3) & ~(size_t)3) {
        memcpy(&head, answers, sizeof head);
        memcpy(&code, answers + sizeof head, sizeof code);
        if ((head.type == ERROR && code != 0) || head.length < sizeof head || head.length > (size_t)(end - answers))
            return 0;
    }
    return length >= 0 && answers == end;
}

/* Say whether a job is not to be begun: answers to one before it may still come on its socket. */
static int is_in_vain(const struct job *jobs, const struct job *job)
{
    for (const struct job *each = jobs; each < job; each++)
        if (job->sock >= 0 && each->sock == job->sock && each->found < 0)
            return 1;
    return 0;
}

/* Look at the interfaces of a job whose answers have come, and close what was kept open for it. */
static void look_again(struct job *job, const char *text)
{
    if (job->found >= 0)
        job->idle = count_idle(job->sock >= 0 ? job->sock : job->kept, text + job->devices);
    if (job->kept >= 0)
        close(job->kept);
}

/* Do several exchanges, one after the other; each tells what became of it. Those inside a namespace write its files in
 * this procfs, or in /proc where it is negative. Where this returns less than their number, that one is the last that
 * was begun, and the thread is still in its namespace. */
int exchange_all(int home, int procfs, struct job *jobs, int count, const char *text, unsigned char *answers,
                 size_t room)
{
    size_t used = 0;

    for (int number = 0; number < count; number++) {
        struct job *job = &jobs[number];

        job->at = used;
        job->kept = -1;
        job->outcome = (struct outcome){.step = EXCHANGE};
        if (is_in_vain(jobs, job))
            job->found = -ECANCELED;
        else if (job->sock >= 0)
            job->found = exchange(job->sock, text + job->asked, job->length, job->last, answers + used, room - used);
        else
            job->found = exchange_inside(home, procfs, job->namespace, text + job->here, text + job->there,
                                         text + job->asked, job->length, job->last, job->seconds, answers + used,
                                         room - used, &job->kept, &job->outcome);
        if (job->outcome.step == RETURN)
            return number;
        job->well = are_well(answers + used, job->found);
        if (job->found > 0)
            used += (size_t)job->found;
    }
    for (int number = 0; number < count; number++)
        look_again(&jobs[number], text);
    return count;
}

enum namespace { ANOTHER, OWN, NONE };

/* Say what a descriptor is: another network namespace than that of this process, its own, or none at all. */
int judge_namespace(int descriptor)
{
    struct stat given, own;

    if (ioctl(descriptor, KIND_OF_NAMESPACE) != CLONE_NEWNET || fstat(descriptor, &given) != 0 ||
        stat("/proc/self/ns/net", &own) != 0)
        return NONE;
    return given.st_dev == own.st_dev && given.st_ino == own.st_ino ? OWN : ANOTHER;
}
