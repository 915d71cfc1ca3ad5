/*
 * felix-cni: the CNI plugin that container runtimes start; it forwards each call to the agent and prints the answer.
 *
 * A node may have no Python, and a pod should not wait for an interpreter: this is one static binary. It knows nothing
 * of networks. It opens the pod's namespace itself, because the path that the runtime gives (/proc/PID/ns/net,
 * /run/netns/NAME) means something in the runtime's mount namespace and perhaps nothing in the agent's, and passes the
 * descriptor along (SCM_RIGHTS).
 *
 * A call:    "felix-cni 1" NUL, NAME=VALUE NUL for each CNI_ variable, NUL, standard input; then the end of the stream.
 * An answer: the digit of the exit status, then what goes to standard output, one line at most. It ends with the line;
 * whoever waited for the end of the stream, too, would mostly have to be woken for it a second time.
 *
 * VERSION is answered without the agent. Where the agent is away the error is 11, "try again later"; for STATUS it is 50.
 * DEL succeeds all the same: the call is left as a file in the folder cni-deletions beside the socket, named
 * CONTAINER@INTERFACE, and the agent does it when it starts.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/felix/cni.sock"
#define PREAMBLE "felix-cni 1"
#define NOTES "cni-deletions"
#define VERSIONS "[\"0.3.1\", \"0.4.0\", \"1.0.0\", \"1.1.0\"]"

enum {
    MAXIMUM_BYTES = 1 << 20, /* of standard input, of all variables together, and of the answer */
    INPUT_SECONDS = 10,      /* a runtime writes the configuration at once */
    SEND_SECONDS = 10,
    ANSWER_SECONDS = 110, /* the agent gives up earlier, and says why; kubelet waits for two minutes */
    VERSION_BYTES = 15,
    NOTE_BYTES = 120,  /* of a container's ID, and of an interface's name, that a file is named after */
    PATH_BYTES = 512,
    NO_BYTE = -1, /* unlike all that can be read */
};

/* Error codes of the CNI specification. */
enum { IO_FAILURE = 5, DECODING_FAILURE = 6, TRY_AGAIN_LATER = 11, CANNOT_ADD = 50 };

static const char *const variables[] = {
    "CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH",
};

/* Growing is not needed: every size has a limit, and a static buffer costs nothing until it is written. */
struct buffer {
    size_t length;
    char bytes[2 * MAXIMUM_BYTES + 2]; /* variables, the empty string behind them, input */
};

static struct buffer input, call, answer;
static char version[VERSION_BYTES + 1] = "1.0.0"; /* of the configuration, in which errors are written */

static long milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000L + now.tv_nsec / 1000000L;
}

/* Wait until the descriptor is ready or the deadline passes. */
static bool wait_for(int descriptor, short events, long deadline)
{
    for (;;) {
        struct pollfd one = {.fd = descriptor, .events = events};
        long left = deadline - milliseconds();
        int ready;

        if (left <= 0)
            return false;
        ready = poll(&one, 1, (int)left);
        if (ready > 0)
            return true;
        if (ready < 0 && errno != EINTR)
            return false;
    }
}

/* Read to the end of the stream, or to a last byte. False with errno set: ETIMEDOUT, EFBIG, or what read said. */
static bool read_all(int descriptor, struct buffer *into, size_t limit, int last, long deadline)
{
    while (into->length == 0 || (unsigned char)into->bytes[into->length - 1] != last) {
        ssize_t count;

        if (!wait_for(descriptor, POLLIN, deadline)) {
            errno = ETIMEDOUT;
            return false;
        }
        /* One byte more than the limit, to tell a full buffer from too much. */
        count = read(descriptor, into->bytes + into->length, limit + 1 - into->length);
        if (count == 0)
            return true;
        if (count < 0) {
            if (errno == EINTR || errno == EAGAIN)
                continue;
            return false;
        }
        into->length += (size_t)count;
        if (into->length > limit) {
            errno = EFBIG;
            return false;
        }
    }
    return true;
}

/* Write everything, or as much as the reader takes; there is nobody to tell where standard output is closed. */
static bool write_all(int descriptor, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t count = write(descriptor, bytes, length);

        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return false;
        bytes += count;
        length -= (size_t)count;
    }
    return true;
}

/* Print text as the inside of a JSON string; bytes that are not plain ASCII become '?'. */
static void print_escaped(const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;

        if (byte == '"' || byte == '\\')
            printf("\\%c", byte);
        else
            putchar(byte >= 0x20 && byte < 0x7f ? byte : '?');
    }
}

/* Print an error as the specification has it: on standard output, with a non-zero exit status. */
static int fail(int code, const char *what, const char *which, const char *remedy)
{
    printf("{\"cniVersion\": \"%s\", \"code\": %d, \"msg\": \"", version, code);
    print_escaped(what);
    print_escaped(which);
    print_escaped(remedy);
    printf("\"}\n");
    fflush(stdout);
    return 1;
}

/* Find the value of "cniVersion" in the configuration without understanding JSON: errors should carry it. */
static void find_version(const char *text, size_t length)
{
    static const char key[] = "\"cniVersion\"";
    const char *end = text + length;
    const char *at = memmem(text, length, key, sizeof key - 1);
    size_t digits = 0;

    if (at == NULL)
        return;
    at += sizeof key - 1;
    while (at < end && strchr(" \t\r\n:", *at) != NULL && *at != '\0')
        at++;
    if (at == end || *at++ != '"')
        return;
    while (at + digits < end && digits < VERSION_BYTES && strchr("0123456789.", at[digits]) != NULL && at[digits] != '\0')
        digits++;
    if (digits == 0 || at + digits == end || at[digits] != '"')
        return;
    memcpy(version, at, digits);
    version[digits] = '\0';
}

/* Append a string with its final zero. */
static bool append(struct buffer *to, const char *name, const char *value)
{
    size_t room = MAXIMUM_BYTES - to->length;
    int count = snprintf(to->bytes + to->length, room, "%s%s", name, value);

    if (count < 0 || (size_t)count >= room)
        return false;
    to->length += (size_t)count + 1;
    return true;
}

static bool compose_call(void)
{
    if (!append(&call, PREAMBLE, ""))
        return false;
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        const char *value = getenv(variables[i]);
        char name[32];

        snprintf(name, sizeof name, "%s=", variables[i]);
        if (value != NULL && !append(&call, name, value))
            return false;
    }
    call.bytes[call.length++] = '\0';
    memcpy(call.bytes + call.length, input.bytes, input.length);
    call.length += input.length;
    return true;
}

/* Connect to the agent; -1 with errno set. */
static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = SEND_SECONDS};
    int agent;

    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address.sun_path, path);
    agent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (agent < 0)
        return -1;
    /* The limit of sending is also that of connecting to a socket whose backlog is full. */
    setsockopt(agent, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(agent, (struct sockaddr *)&address, sizeof address) != 0) {
        int reason = errno;

        close(agent);
        errno = reason == EAGAIN ? ETIMEDOUT : reason;
        return -1;
    }
    return agent;
}

/* Send the call, the namespace's descriptor with its first byte, and say that nothing follows. */
static bool send_call(int agent, int namespace)
{
    size_t sent = 0;

    while (sent < call.length) {
        struct iovec piece = {call.bytes + sent, call.length - sent};
        union {
            struct cmsghdr header;
            char space[CMSG_SPACE(sizeof(int))];
        } control = {0};
        struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
        ssize_t count;

        if (namespace >= 0 && sent == 0) {
            struct cmsghdr *header;

            message.msg_control = control.space;
            message.msg_controllen = sizeof control.space;
            header = CMSG_FIRSTHDR(&message);
            header->cmsg_level = SOL_SOCKET;
            header->cmsg_type = SCM_RIGHTS;
            header->cmsg_len = CMSG_LEN(sizeof namespace);
            memcpy(CMSG_DATA(header), &namespace, sizeof namespace);
        }
        count = sendmsg(agent, &message, MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return false;
        sent += (size_t)count;
    }
    return shutdown(agent, SHUT_WR) == 0;
}

/* What went wrong with the last attempt, in the words of `fail`. */
static struct failure {
    const char *what, *which, *remedy;
    bool nobody; /* no agent was there, or it died: what it has not done, the next one can */
} failure;

static int failed(bool nobody, const char *what, const char *which, const char *remedy)
{
    failure = (struct failure){what, which, remedy, nobody};
    return -1;
}

/* Ask the agent once; return the exit status, or -1 with `failure` set. */
static int ask(const char *path, int namespace)
{
    static char why[256];
    int agent = connect_to(path), status = -1;

    answer.length = 0;
    if (agent < 0) {
        snprintf(why, sizeof why, ": %s; start felix-agent on this node", strerror(errno));
        return failed(errno == ENOENT || errno == ECONNREFUSED, "the agent does not answer at ", path, why);
    }
    if (!send_call(agent, namespace))
        failed(errno == EPIPE, "the agent did not take the call: ", strerror(errno), "; see its log");
    else if (!read_all(agent, &answer, MAXIMUM_BYTES, '\n', milliseconds() + ANSWER_SECONDS * 1000L))
        failed(errno == ECONNRESET, "the agent did not answer: ", strerror(errno), "; see its log");
    else if (answer.length == 0 || answer.bytes[0] < '0' || answer.bytes[0] > '9')
        failed(answer.length == 0, "the agent went away before it answered", "", "; see its log");
    else
        status = answer.bytes[0] - '0';
    close(agent);
    return status;
}

/* Say whether a variable can be part of a file's name; what it has to be apart from that, the agent knows. */
static bool is_plain(const char *text)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";

    return text != NULL && *text != '\0' && strspn(text, plain) == strlen(text) && strlen(text) <= NOTE_BYTES;
}

/* Write the call down beside the socket, for the next agent to do before anything else. */
static bool leave_note(const char *path, char *note, size_t size)
{
    const char *container = getenv("CNI_CONTAINERID"), *interface = getenv("CNI_IFNAME");
    const char *slash = strrchr(path, '/');
    int length = slash != NULL ? (int)(slash - path) : 0, file;
    char unfinished[PATH_BYTES];
    bool written;

    if (length == 0 || !is_plain(container) || !is_plain(interface))
        return false;
    snprintf(note, size, "%.*s", length, path);
    mkdir(note, 0755); /* gone since the machine started anew, and with it every pod but not the runtime's memory */
    snprintf(note, size, "%.*s/" NOTES, length, path);
    mkdir(note, 0700);
    snprintf(unfinished, sizeof unfinished, "%.*s/" NOTES "/.%s@%s.%d", length, path, container, interface, getpid());
    snprintf(note, size, "%.*s/" NOTES "/%s@%s", length, path, container, interface);
    file = open(unfinished, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0)
        return false;
    written = write_all(file, call.bytes, call.length);
    if (close(file) == 0 && written && rename(unfinished, note) == 0)
        return true;
    unlink(unfinished);
    return false;
}

/* Pass one call to the agent; return the exit status. */
static int forward(const char *command)
{
    int away = strcmp(command, "STATUS") == 0 ? CANNOT_ADD : TRY_AGAIN_LATER;
    const char *given = getenv("FELIX_CNI_SOCKET");
    const char *path = given != NULL && *given != '\0' ? given : DEFAULT_SOCKET;
    const char *netns = getenv("CNI_NETNS");
    char note[PATH_BYTES];
    int namespace = -1, status;

    if (!compose_call())
        return fail(DECODING_FAILURE, "the CNI_ variables have more than 1 MiB", "", "; shorten CNI_ARGS");
    /* O_NONBLOCK: a path to a FIFO must not make us wait for its writer. What cannot be opened, the agent judges. */
    if (netns != NULL && *netns != '\0')
        namespace = open(netns, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    status = ask(path, namespace);
    if (status < 0 && failure.nobody && strcmp(command, "DEL") == 0 && leave_note(path, note, sizeof note)) {
        /* An agent that has started meanwhile may have looked for notes before there was this one. */
        status = ask(path, namespace);
        if (status < 0 && failure.nobody) {
            fprintf(stderr, "felix-cni: the agent is away; it does this DEL when it starts: %s\n", note);
            return 0;
        }
        unlink(note); /* whoever called knows how it ended, or calls again */
    }
    if (status < 0)
        return fail(away, failure.what, failure.which, failure.remedy);
    if (!write_all(STDOUT_FILENO, answer.bytes + 1, answer.length - 1))
        return 1;
    return status;
}

int main(void)
{
    const char *command = getenv("CNI_COMMAND");
    bool asks_version = command != NULL && strcmp(command, "VERSION") == 0;
    bool complete;

    if (command == NULL || *command == '\0') {
        fprintf(stderr, "felix-cni is a CNI plugin of spec versions %s; container runtimes start it\n", VERSIONS);
        return 0;
    }
    complete = read_all(STDIN_FILENO, &input, MAXIMUM_BYTES, NO_BYTE, milliseconds() + INPUT_SECONDS * 1000L);
    find_version(input.bytes, input.length);
    if (asks_version) {
        /* Standard input is of no consequence here: a closed or silent one must not cost the answer. */
        printf("{\"cniVersion\": \"%s\", \"supportedVersions\": %s}\n", input.length > 0 ? version : "1.1.0", VERSIONS);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    if (!complete && errno == EFBIG)
        return fail(DECODING_FAILURE, "the configuration on standard input has more than 1 MiB", "", "; shorten it");
    if (!complete && errno != EBADF) /* a closed standard input is an empty one */
        return fail(IO_FAILURE, "standard input cannot be read: ", strerror(errno), "; write the configuration there");
    return forward(command);
}
