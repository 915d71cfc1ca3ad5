/* Small UDP packets as fast as one core makes them: `packets send ADDRESS PORT BYTES SECONDS` prints how many were
   sent, `packets count PORT` how many arrived each second on average, between the first and the last. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH 64

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec * 1e-9;
}

static void prepare(struct mmsghdr *messages, struct iovec *pieces, char *bytes, size_t size)
{
	for (int i = 0; i < BATCH; i++) {
		pieces[i] = (struct iovec){bytes, size};
		messages[i].msg_hdr = (struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1};
	}
}

int main(int count, char **words)
{
	static struct mmsghdr messages[BATCH];
	static struct iovec pieces[BATCH];
	static char bytes[2048];
	int sock = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in address = {.sin_family = AF_INET};
	long packets = 0;

	if (count == 6) {
		double end = now() + atof(words[5]);
		address.sin_port = htons(atoi(words[3]));
		if (!inet_aton(words[2], &address.sin_addr) || connect(sock, (void *)&address, sizeof(address)))
			return perror(words[2]), 1;
		prepare(messages, pieces, bytes, atoi(words[4]));
		while (now() < end) {
			int sent = sendmmsg(sock, messages, BATCH, 0);
			packets += sent > 0 ? sent : 0;
		}
		printf("%ld\n", packets);
		return 0;
	}
	if (count != 3)
		return 2;
	int room = 16 << 20;
	struct timeval quiet = {2, 0};
	struct timespec pause = {0, 1000000};
	double first = 0, last = 0;
	setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &quiet, sizeof(quiet));
	address.sin_port = htons(atoi(words[2]));
	if (bind(sock, (void *)&address, sizeof(address)))
		return perror("bind"), 1;
	puts("ready");
	fflush(stdout);
	prepare(messages, pieces, bytes, sizeof(bytes));
	for (;;) {
		int got = recvmmsg(sock, messages, BATCH, MSG_WAITFORONE, NULL);
		if (got <= 0)
			break;
		last = now();
		if (!packets)
			first = last;
		packets += got;
		/* Woken by the clock, not by each packet: that would cost the sender more than a tunnel does, and hide it. */
		if (got < BATCH)
			nanosleep(&pause, NULL);
	}
	printf("%.0f\n", last > first ? packets / (last - first) : 0);
	return 0;
}
