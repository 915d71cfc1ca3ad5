/* What a network card with offloads does, for the tunnel's process: cuts large packets up, joins small ones, computes
 * checksums. Functions of memory alone: no system call, no allocation, no libc, no state. batch.py calls them. */

#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
    OUTER = 20,       /* bytes of the outer header, RFC 2003 section 3.1 */
    HEAD = 192,       /* bytes of room for headers: 20 outer, 60 inner, 60 TCP, each at its longest */
    LONGEST = 65535,  /* bytes of an IPv4 packet, RFC 791 section 3.1 */
    BATCH = 64,       /* packets joined at once, at most */
    MOST_JOINED = 64, /* datagrams: UDP_MAX_SEGMENTS of the oldest kernels that cut UDP up */
    TCP = 6,
    UDP = 17,
    FIN = 0x01, PSH = 0x08, ACK = 0x10, CWR = 0x80, /* RFC 9293 section 3.1 */
    DEFAULT_SEGMENT = 536, /* RFC 9293 section 3.7.1 */
    NEEDS_CHECKSUM = 1, GSO_NONE = 0, GSO_TCP4 = 1, GSO_UDP = 5, /* linux/virtio_net.h */
};

/* struct virtio_net_hdr, in the byte order of the machine. */
struct offload {
    uint8_t flags, kind;
    uint16_t headers, segment, checksum_start, checksum_offset;
};

struct route {
    uint8_t outer[OUTER];
    uint8_t address[16]; /* struct sockaddr_in */
};

/* One packet from the device, behind its struct offload, and where it goes. */
struct job {
    const uint8_t *packet;
    size_t size;
    const struct route *route;
};

/* Where messages are made; `octets` of inner packets in them. */
struct table {
    struct mmsghdr *messages;
    struct iovec *vectors; /* two a message */
    uint8_t *heads;        /* HEAD bytes a message */
    size_t room, used, octets, malformed;
};

/* One write to the device: `count` vectors from `first` on, holding `packets`. */
struct group {
    size_t first, count, packets, octets;
    const uint8_t *packet;
    size_t headers, segment;
    uint32_t next; /* TCP sequence number */
    uint8_t push, open;
};

static uint16_t get16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }
static uint32_t get32(const uint8_t *at) { return (uint32_t)get16(at) << 16 | get16(at + 2); }
static void put16(uint8_t *at, uint32_t value) { at[0] = (uint8_t)(value >> 8); at[1] = (uint8_t)value; }
static void put32(uint8_t *at, uint32_t value) { put16(at, value >> 16); put16(at + 2, value & 0xFFFF); }

static void copy(uint8_t *to, const uint8_t *from, size_t size)
{
    while (size--)
        *to++ = *from++;
}

static int same(const uint8_t *one, const uint8_t *two, size_t size)
{
    while (size--)
        if (*one++ != *two++)
            return 0;
    return 1;
}

/* One's complement sum, RFC 1071, of words in the byte order of the machine: the byte order does not matter to it. */
static uint64_t sum(const uint8_t *data, size_t size, uint64_t total)
{
    for (; size >= 32; size -= 32, data += 32) {
        uint32_t words[8];
        __builtin_memcpy(words, data, sizeof words);
        for (int i = 0; i < 8; i++)
            total += words[i];
    }
    for (size_t at = 0; at < size; at += 2) {
        uint8_t pair[2] = {data[at], at + 1 < size ? data[at + 1] : 0};
        uint16_t word;
        __builtin_memcpy(&word, pair, sizeof word);
        total += word;
    }
    return total;
}

static uint16_t folded(uint64_t total)
{
    while (total >> 16)
        total = (total & 0xFFFF) + (total >> 16);
    return (uint16_t)total;
}

static void put_checksum(uint8_t *at, uint64_t total, int udp)
{
    uint16_t value = (uint16_t)~folded(total);
    if (udp && value == 0)
        value = 0xFFFF; /* zero says that there is none: RFC 768 */
    __builtin_memcpy(at, &value, sizeof value);
}

/* Sum of the pseudo-header of a TCP or UDP packet whose payload with its header has `length` bytes. */
static uint64_t pseudo(const uint8_t *packet, size_t length)
{
    uint8_t rest[4] = {0, packet[9], (uint8_t)(length >> 8), (uint8_t)length};
    return sum(rest, sizeof rest, sum(packet + 12, 8, 0));
}

/* Length of IP and TCP or UDP header together; 0 where they are not whole. */
static size_t both_headers(const uint8_t *packet, size_t size)
{
    size_t ip = (size_t)(packet[0] & 15) * 4, least = packet[9] == TCP ? 20 : 8, more = least;
    if (ip < 20 || size < ip + least)
        return 0;
    if (packet[9] == TCP)
        more = (size_t)(packet[ip + 12] >> 4) * 4;
    return more < least || size < ip + more ? 0 : ip + more;
}

static uint8_t *message(struct table *table, const struct route *route, const uint8_t *packet, size_t headers,
                        const uint8_t *payload, size_t size)
{
    size_t at = table->used++;
    struct iovec *vectors = table->vectors + 2 * at;
    uint8_t *head = table->heads + HEAD * at;
    copy(head, route->outer, OUTER);
    head[1] = packet[1];        /* type of service: RFC 6040 section 4.1 */
    head[6] = packet[6] & 0x40; /* don't fragment: RFC 2003 section 3.1 */
    copy(head + OUTER, packet, headers);
    vectors[0] = (struct iovec){head, OUTER + headers};
    vectors[1] = (struct iovec){(void *)payload, size};
    table->messages[at].msg_hdr.msg_name = (void *)route->address;
    table->octets += headers + size;
    return head + OUTER;
}

/* Make the messages of one large packet; 0 where the table has no room for all of them. */
static int cut(const struct job *job, const struct offload *offload, struct table *table)
{
    const uint8_t *packet = job->packet + sizeof *offload;
    size_t size = job->size - sizeof *offload, headers = both_headers(packet, size), step = offload->segment;
    int tcp = offload->kind == GSO_TCP4;
    if (!headers || !step || size == headers || packet[9] != (tcp ? TCP : UDP)) {
        table->malformed++;
        return 1;
    }
    size_t count = (size - headers + step - 1) / step, ip = (size_t)(packet[0] & 15) * 4;
    if (count > table->room - table->used) {
        if (table->used)
            return 0;
        table->malformed++; /* more pieces than the table holds: nobody's segments are that small */
        return 1;
    }
    for (size_t i = 0; i < count; i++) {
        const uint8_t *payload = packet + headers + i * step;
        size_t length = i + 1 < count ? step : size - headers - i * step;
        uint8_t *head = message(table, job->route, packet, headers, payload, length), *inside = head + ip;
        put16(head + 2, (uint32_t)(headers + length));
        put16(head + 4, get16(packet + 4) + (uint32_t)i);
        put16(head + 10, 0);
        put_checksum(head + 10, sum(head, ip, 0), 0);
        if (tcp) {
            put32(inside + 4, get32(packet + ip + 4) + (uint32_t)(i * step));
            inside[13] &= (uint8_t)~((i + 1 < count ? FIN | PSH : 0) | (i ? CWR : 0));
        } else {
            put16(inside + 4, (uint32_t)(headers - ip + length));
        }
        uint8_t *checksum = inside + (tcp ? 16 : 6);
        put16(checksum, 0);
        uint64_t total = sum(inside, headers - ip, pseudo(head, headers - ip + length));
        put_checksum(checksum, sum(payload, length, total), !tcp);
    }
    return 1;
}

/* Make messages of packets from the device, as many as the table has room for; return how many packets that were. */
size_t encapsulate(struct job *jobs, size_t count, struct table *table)
{
    table->used = table->octets = table->malformed = 0;
    for (size_t i = 0; i < count; i++) {
        struct offload offload;
        uint8_t *packet = (uint8_t *)jobs[i].packet + sizeof offload;
        size_t size = jobs[i].size - sizeof offload;
        __builtin_memcpy(&offload, jobs[i].packet, sizeof offload);
        if (offload.kind != GSO_NONE) {
            if (!cut(&jobs[i], &offload, table))
                return i;
            continue;
        }
        if (table->used == table->room)
            return i;
        if (offload.flags & NEEDS_CHECKSUM) {
            size_t start = offload.checksum_start, at = start + offload.checksum_offset;
            if (at + 2 > size) {
                table->malformed++;
                continue;
            }
            put_checksum(packet + at, sum(packet + start, size - start, 0), packet[9] == UDP);
        }
        message(table, jobs[i].route, packet, 0, packet, size);
    }
    return count;
}

/* Say where the payload of a packet begins that may be joined with others; 0: it may not.
 * Its checksums are verified here, since nobody can once it is part of a larger one. */
static size_t joinable(const uint8_t *packet, size_t size, int udp)
{
    if (size < 28 || packet[0] != 0x45 || get16(packet + 2) != size || get16(packet + 6) != 0x4000)
        return 0; /* don't fragment is set: so the identification means nothing, RFC 6864 section 4.1 */
    if (packet[9] != TCP && !(udp && packet[9] == UDP))
        return 0;
    size_t headers = both_headers(packet, size);
    if (!headers || headers == size || folded(sum(packet, 20, 0)) != 0xFFFF)
        return 0;
    if (packet[9] == TCP && (packet[33] & ~PSH) != ACK)
        return 0;
    if (packet[9] == UDP && (get16(packet + 24) != size - 20 || get16(packet + 26) == 0))
        return 0;
    return folded(sum(packet + 20, size - 20, pseudo(packet, size - 20))) == 0xFFFF ? headers : 0;
}

/* Say whether a packet continues what is in the group, byte for byte as a cut of the whole would have made it. */
static int follows(const struct group *group, const uint8_t *packet, size_t size, size_t headers)
{
    const uint8_t *first = group->packet;
    if (headers != group->headers || size - headers > group->segment || group->octets + size - headers > LONGEST ||
        group->packets == MOST_JOINED || first[1] != packet[1] || first[8] != packet[8])
        return 0;
    if (first[9] == UDP)
        return 1;
    return get32(packet + 24) == group->next && same(first + 28, packet + 28, 5) && same(first + 34, packet + 34, 2) &&
           same(first + 38, packet + 38, headers - 38);
}

static void add(struct group *group, const uint8_t *packet, size_t size, size_t headers)
{
    if (!group->packets++) {
        *group = (struct group){.packets = 1, .octets = headers, .packet = packet, .headers = headers};
        group->segment = size - headers;
    }
    group->octets += size - headers;
    group->push = packet[9] == TCP && headers ? packet[33] & PSH : 0;
    group->next = headers > 28 ? get32(packet + 24) + (uint32_t)(size - headers) : 0;
    group->open = headers && size - headers == group->segment && !group->push;
}

/* Find the open group that a packet belongs to; those between the same hosts that it must not overtake are closed. */
static size_t place(struct group *groups, size_t used, const uint8_t *packet, size_t size, size_t headers)
{
    size_t found = used;
    for (size_t i = 0; i < used; i++) {
        struct group *group = &groups[i];
        if (!group->open || size < 20 || !same(group->packet + 12, packet + 12, 8))
            continue;
        if (headers && (group->packet[9] != packet[9] || !same(group->packet + 20, packet + 20, 4)))
            continue; /* another flow, in no order with this one */
        if (headers && follows(group, packet, size, headers))
            found = i;
        else
            group->open = 0;
    }
    return found;
}

/* Say what is left to do of a packet whose sender left its checksum to a network card, and perhaps the cutting up, where
 * there is none: nodes on one machine, on a veth. The checksum is then the sum of the pseudo-header. How long the segments
 * were meant to be nobody tells; the shortest that every host takes is right for every pod. */
static struct offload left_over(const uint8_t *packet, size_t size)
{
    struct offload none = {0, GSO_NONE, 0, 0, 0, 0};
    size_t ip = size < 28 ? 0 : (size_t)(packet[0] & 15) * 4;
    if (!ip || get16(packet + 2) != size || (get16(packet + 6) & 0x3FFF) || (packet[9] != TCP && packet[9] != UDP))
        return none;
    size_t headers = both_headers(packet, size), at = packet[9] == TCP ? 16 : 6;
    uint16_t partial = folded(pseudo(packet, size - ip));
    if (!headers || !same(packet + ip + at, (const uint8_t *)&partial, sizeof partial))
        return none;
    if (packet[9] == UDP || size - headers <= DEFAULT_SEGMENT)
        return (struct offload){NEEDS_CHECKSUM, GSO_NONE, 0, 0, (uint16_t)ip, (uint16_t)at};
    return (struct offload){NEEDS_CHECKSUM, GSO_TCP4, (uint16_t)headers, DEFAULT_SEGMENT, (uint16_t)ip, (uint16_t)at};
}

/* Write what goes before the payloads of a group: its struct offload, and the headers if it is of several packets. */
static size_t begin(const struct group *group, uint8_t *head)
{
    size_t own = group->packets > 1 ? group->headers : 0;
    struct offload offload = own ? (struct offload){0} : left_over(group->packet, group->octets);
    uint8_t *packet = head + sizeof offload;
    if (own) {
        int tcp = group->packet[9] == TCP;
        offload = (struct offload){NEEDS_CHECKSUM, tcp ? GSO_TCP4 : GSO_UDP, (uint16_t)own, (uint16_t)group->segment,
                                   20, tcp ? 16 : 6};
        copy(packet, group->packet, own);
        put16(packet + 2, (uint32_t)group->octets);
        put16(packet + 10, 0);
        put_checksum(packet + 10, sum(packet, 20, 0), 0);
        if (tcp)
            packet[33] |= group->push;
        else
            put16(packet + 24, (uint32_t)group->octets - 20);
        uint16_t partial = folded(pseudo(packet, group->octets - 20));
        __builtin_memcpy(packet + 20 + offload.checksum_offset, &partial, sizeof partial);
    }
    __builtin_memcpy(head, &offload, sizeof offload);
    return sizeof offload + own;
}

/* Join packets from the nodes to as few as may be; return how many groups that made.
 * `groups` and `heads` (HEAD bytes each) have room for `count`, `vectors` for twice as many. */
size_t join(const struct iovec *packets, size_t count, int udp, struct group *groups, uint8_t *heads,
            struct iovec *vectors)
{
    size_t used = 0, written = 0;
    uint8_t of[BATCH];
    for (size_t i = 0; i < count && i < BATCH; i++) {
        const uint8_t *packet = packets[i].iov_base;
        size_t size = packets[i].iov_len, headers = joinable(packet, size, udp);
        size_t at = place(groups, used, packet, size, headers);
        if (at == used)
            groups[used++].packets = 0;
        add(&groups[at], packet, size, headers);
        of[i] = (uint8_t)at;
    }
    for (size_t at = 0; at < used; at++) {
        struct group *group = &groups[at];
        uint8_t *head = heads + HEAD * at;
        group->first = written;
        vectors[written++] = (struct iovec){head, begin(group, head)};
        size_t skipped = group->packets > 1 ? group->headers : 0, left = group->packets;
        for (size_t i = 0; left; i++)
            if (of[i] == at) {
                vectors[written++] = (struct iovec){(uint8_t *)packets[i].iov_base + skipped, packets[i].iov_len - skipped};
                left--;
            }
        group->count = written - group->first;
        group->octets += skipped * (group->packets - 1); /* now those of the packets as they arrived */
    }
    return used;
}
