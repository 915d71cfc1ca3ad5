/*
 * Calls a CNI plugin as a container runtime does, and says how long each call took, from start to end of its process.
 *
 * caller PROGRAM CONFIGURATION COMMAND AT-ONCE: one line of standard input is one call, "CONTAINER NAMESPACE"; one line
 * of standard output is one answer, "MICROSECONDS STATUS", and the last one "MICROSECONDS all".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAXIMUM = 4096, TEXT = 256, MAXIMUM_AT_ONCE = 64 };

static struct call {
    char container[TEXT], netns[TEXT];
    long microseconds;
    int status;
} calls[MAXIMUM];
static int count, next;
static char **arguments, **environment;

static long microseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}

static void one(struct call *call)
{
    char command[TEXT], container[2 * TEXT], netns[2 * TEXT];
    char *variables[] = {command,  container, netns, "CNI_IFNAME=eth0", "CNI_PATH=/usr/lib/cni", "CNI_ARGS=",
                         "PATH=/usr/sbin:/usr/bin:/sbin:/bin", environment[0], NULL};
    char *words[] = {arguments[1], NULL};
    posix_spawn_file_actions_t files;
    long began;
    pid_t child;

    snprintf(command, sizeof command, "CNI_COMMAND=%s", arguments[3]);
    snprintf(container, sizeof container, "CNI_CONTAINERID=%s", call->container);
    snprintf(netns, sizeof netns, "CNI_NETNS=%s", call->netns);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, arguments[2], O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    began = microseconds();
    if (posix_spawn(&child, arguments[1], &files, NULL, words, variables) != 0) {
        call->status = 255;
        return;
    }
    while (waitpid(child, &call->status, 0) < 0 && errno == EINTR)
        ;
    call->microseconds = microseconds() - began;
    posix_spawn_file_actions_destroy(&files);
}

static void *work(void *unused)
{
    for (;;) {
        int mine = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);

        if (mine >= count)
            return unused;
        one(&calls[mine]);
    }
}

int main(int number, char **words)
{
    static char socket_path[2 * TEXT];
    static char *passed_on[] = {socket_path};
    pthread_t threads[MAXIMUM_AT_ONCE];
    const char *given = getenv("FELIX_CNI_SOCKET");
    int at_once = number == 5 ? atoi(words[4]) : 0;
    long began;

    if (at_once < 1 || at_once > MAXIMUM_AT_ONCE)
        return 2;
    arguments = words;
    environment = passed_on;
    snprintf(socket_path, sizeof socket_path, "FELIX_CNI_SOCKET=%s", given != NULL ? given : "");
    while (count < MAXIMUM && scanf("%255s %255s", calls[count].container, calls[count].netns) == 2)
        count++;
    began = microseconds();
    for (int each = 0; each < at_once; each++)
        pthread_create(&threads[each], NULL, work, NULL);
    for (int each = 0; each < at_once; each++)
        pthread_join(threads[each], NULL);
    began = microseconds() - began;
    for (int each = 0; each < count; each++)
        printf("%ld %d\n", calls[each].microseconds, calls[each].status);
    printf("%ld all\n", began);
    return 0;
}
