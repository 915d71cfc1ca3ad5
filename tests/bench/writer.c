/* Writes route messages that a file holds, a thousand in one send, as `Rtnetlink.write` does, and prints the seconds.
 *
 * The messages are whole, with their headers, and asked for no answer: the last of each send is made to ask for one,
 * behind which nothing more comes. A message that the kernel refuses is answered all the same, so that of each it is
 * known what became of it. Usage: writer FILE; prints the seconds, and how many changes were refused.
 */
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 1000, BUFFER = 4 << 20, ROOM = 1 << 16 };

struct batch { char *start; size_t bytes; uint32_t last; };

static void give_up(const char *what)
{
	perror(what);
	exit(1);
}

static char *whole_file(const char *path, size_t *size)
{
	FILE *file = fopen(path, "rb");
	if (!file || fseek(file, 0, SEEK_END))
		give_up(path);
	*size = ftell(file);
	rewind(file);
	char *data = malloc(*size);
	if (!data || fread(data, 1, *size, file) != *size)
		give_up(path);
	fclose(file);
	return data;
}

/* Cuts the messages into batches, and lets the last message of each ask for an answer. */
static size_t cut(char *data, size_t size, struct batch *batches)
{
	size_t count = 0, offset = 0;
	while (offset < size) {
		struct batch *each = &batches[count++];
		struct nlmsghdr *header = NULL;
		each->start = data + offset;
		for (int number = 0; number < BATCH && offset < size; number++) {
			header = (struct nlmsghdr *)(data + offset);
			offset += NLMSG_ALIGN(header->nlmsg_len);
		}
		header->nlmsg_flags |= NLM_F_ACK;
		each->last = header->nlmsg_seq;
		each->bytes = data + offset - each->start;
	}
	return count;
}

/* Reads up to the answer of the last message; returns how many were refused. */
static size_t answers(int sock, uint32_t last)
{
	static char room[ROOM];
	size_t refused = 0;
	for (;;) {
		ssize_t got = recv(sock, room, sizeof room, 0);
		if (got < 0)
			give_up("recv");
		for (struct nlmsghdr *header = (struct nlmsghdr *)room; NLMSG_OK(header, got); header = NLMSG_NEXT(header, got)) {
			if (header->nlmsg_type != NLMSG_ERROR)
				continue;
			refused += ((struct nlmsgerr *)NLMSG_DATA(header))->error != 0;
			if (header->nlmsg_seq == last)
				return refused;
		}
	}
}

int main(int count, char **words)
{
	if (count != 2) {
		fprintf(stderr, "usage: writer FILE\n");
		return 2;
	}
	size_t size, refused = 0;
	char *data = whole_file(words[1], &size);
	struct batch *batches = calloc(size / (BATCH * sizeof(struct nlmsghdr)) + 1, sizeof *batches);
	size_t number = cut(data, size, batches);
	int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), buffer = BUFFER, on = 1;
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	if (sock < 0 || setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer)
	    || setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer)
	    || setsockopt(sock, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on)
	    || setsockopt(sock, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on)
	    || bind(sock, (struct sockaddr *)&kernel, sizeof kernel))
		give_up("route socket");
	struct timespec start, end;
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (size_t each = 0; each < number; each++) {
		if (send(sock, batches[each].start, batches[each].bytes, 0) < 0)
			give_up("send");
		refused += answers(sock, batches[each].last);
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%.6f %zu\n", end.tv_sec - start.tv_sec + (end.tv_nsec - start.tv_nsec) / 1e9, refused);
	return 0;
}
