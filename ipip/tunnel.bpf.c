/* IP in IP (RFC 2003) in the kernel without the ipip module: two programs for tc, and the maps that they share.

   encapsulate  egress of tunl0: asks the FIB which node the packet's route leads to and by which uplink that node is
                reached, puts the outer header before the packet and hands it to the uplink's neighbour.
   decapsulate  ingress of every uplink: takes the outer header off packets from known nodes to our address and lets
                them arrive at tunl0; drops and counts what else carries protocol 4 to us.

   Nothing here needs the agent: it writes `settings` and `peers`, and may die. Only headers of the kernel's own user
   API are used, so that clang alone can compile this. Helpers need Linux 5.12 (the MTU of a FIB lookup). */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define BE16(x) __builtin_bswap16(x)

static void *(*map_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static __u64 (*now)(void) = (void *)BPF_FUNC_ktime_get_ns;
static __u32 (*random32)(void) = (void *)BPF_FUNC_get_prandom_u32;
static long (*redirect)(__u32 device, __u64 flags) = (void *)BPF_FUNC_redirect;
static long (*redirect_neighbour)(__u32 device, struct bpf_redir_neigh *, int size, __u64 flags) =
	(void *)BPF_FUNC_redirect_neigh;
static long (*adjust_room)(struct __sk_buff *, __s32 difference, __u32 mode, __u64 flags) =
	(void *)BPF_FUNC_skb_adjust_room;
static long (*pull)(struct __sk_buff *, __u32 length) = (void *)BPF_FUNC_skb_pull_data;
static long (*load)(const void *, __u32 offset, void *to, __u32 length) = (void *)BPF_FUNC_skb_load_bytes;
static long (*store)(struct __sk_buff *, __u32 offset, const void *from, __u32 length, __u64 flags) =
	(void *)BPF_FUNC_skb_store_bytes;
static long (*change_tail)(struct __sk_buff *, __u32 length, __u64 flags) = (void *)BPF_FUNC_skb_change_tail;
static long (*fib_lookup)(void *, struct bpf_fib_lookup *, int size, __u32 flags) = (void *)BPF_FUNC_fib_lookup;
static __s64 (*csum_difference)(__be32 *from, __u32 from_size, __be32 *to, __u32 to_size, __wsum seed) =
	(void *)BPF_FUNC_csum_diff;

#define HALVES 16         /* that may wait on one processor; a power of two */
#define LONGEST_HALF 2048 /* bytes: paths of jumbo frames that end in smaller ones cut into more than two */

/* --- what the agent writes and reads; ipip/ebpf.py knows the same layouts */

struct map {
	__u32 type, key_size, value_size, max_entries, flags;
};

struct settings {
	__be32 local;  /* our address: source of what we send, the only destination that is decapsulated */
	__u32 device;  /* index of tunl0 */
};

struct peer {
	__u64 until;  /* when `mtu` is forgotten: nanoseconds of CLOCK_MONOTONIC */
	__u32 mtu;    /* bytes of an outer packet that a router on the way said it can carry; 0: nothing said */
	__u32 unused;
};

struct count {
	__u64 packets, bytes;
};

/* Half of an outer packet that was cut in two, until the other half is here. */
struct half {
	__u64 until;
	__be32 source;
	__be16 id;
	__u8 first;    /* whether it is the first half */
	__u8 service;  /* its type of service */
	__u32 offset;  /* where it begins, in bytes */
	__u32 length;  /* bytes of `data` */
	__u8 data[LONGEST_HALF];
};

enum reason {
	SENT,
	RECEIVED,
	NO_ROUTE,
	SOURCE_NOT_ALLOWED,
	MALFORMED,
	TOO_BIG,
	CONGESTION,
	NO_UPLINK,
	FRAGMENT,
	REFUSED,
	REASONS
};

struct map SECTION("maps") settings = {BPF_MAP_TYPE_ARRAY, 4, sizeof(struct settings), 1, 0};
struct map SECTION("maps") peers = {BPF_MAP_TYPE_HASH, 4, sizeof(struct peer), 1 << 16, BPF_F_NO_PREALLOC};
struct map SECTION("maps") counters = {BPF_MAP_TYPE_PERCPU_ARRAY, 4, sizeof(struct count), REASONS, 0};
struct map SECTION("maps") halves = {BPF_MAP_TYPE_PERCPU_ARRAY, 4, sizeof(struct half), HALVES + 1, 0};

/* --- */

#define VERSION_4 4
#define IPIP 4
#define ICMP 1
#define TCP 6
#define UDP 17
#define DONT_FRAGMENT BE16(0x4000)
#define ANY_FRAGMENT BE16(0x3fff)
#define FRAGMENT_OFFSET BE16(0x1fff)
#define MORE_FRAGMENTS BE16(0x2000)
#define AF_INET 2
#define AF_INET6 10
#define PACKET_HOST 0

#define TIME_TO_LIVE 64       /* a tunnel is one hop of the inner packet: RFC 2003 section 3.1 */
#define TRIES 4               /* questions to the FIB while a route moves back and forth under a packet */
#define MINIMUM_MTU 576       /* below this a router lies: RFC 791 section 3.1 */
#define PATH_MTU_NANOSECONDS 600000000000ULL /* RFC 1191 section 6.3: ten minutes */
#define HALF_NANOSECONDS 2000000000ULL /* halves come together or never; identifications come again: RFC 6864 */
#define QUOTE 68              /* the longest header and 8 bytes: RFC 792 */
#define HEADER ((__u32)sizeof(struct iphdr))
#define START ((__u32)ETH_HLEN)

/* MAC of both ends of tunl0's veth pair: 02, locally administered, and "felix". As numbers, for a constant array would
   be data, which the loader does not know. */
#define MAC_HEAD __builtin_bswap32(0x0266656c)
#define MAC_TAIL BE16(0x6978)

struct mac {
	__u32 head;
	__u16 tail;
} __attribute__((packed));

INLINE void count(enum reason reason, __u32 packets, __u32 bytes)
{
	__u32 key = reason;
	struct count *found = map_lookup(&counters, &key);
	if (found) {
		found->packets += packets;
		found->bytes += bytes;
	}
}

INLINE int drop(enum reason reason, struct __sk_buff *skb)
{
	count(reason, skb->gso_segs ?: 1, skb->len - START);
	return TC_ACT_SHOT;
}

INLINE __u16 folded(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

INLINE __u16 header_checksum(struct iphdr *header)
{
	__u16 *words = (void *)header;
	__u32 sum = 0;
#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += words[i];
	return ~folded(sum);
}

/* Returns the first `length` bytes of the network header, or NULL where the packet is shorter. */
INLINE void *network(struct __sk_buff *skb, __u32 length)
{
	if ((void *)(long)skb->data + START + length > (void *)(long)skb->data_end && pull(skb, START + length))
		return 0;
	if ((void *)(long)skb->data + START + length > (void *)(long)skb->data_end)
		return 0;
	return (void *)(long)skb->data + START;
}

/* Returns how long an IP packet will be on the wire: of many that travel as one, the longest. */
INLINE __u32 wire_length(struct __sk_buff *skb, __u32 header_length, __u8 protocol)
{
	__u8 offset = 0;

	if (!skb->gso_size)
		return skb->len - START;
	if (protocol != TCP)
		return header_length + 8 + skb->gso_size;
	load(skb, START + header_length + 12, &offset, 1);
	return header_length + (offset >> 4) * 4 + skb->gso_size;
}

/* RFC 1122 section 3.2.2: no error about a later fragment, about an error, or to what is no host. */
INLINE int answerable(struct __sk_buff *skb, struct iphdr *inner)
{
	__u8 type = 0, first = inner->saddr & 0xff;

	if ((inner->frag_off & FRAGMENT_OFFSET) || first == 0 || first == 127 || first >= 224)
		return 0;
	if (inner->protocol != ICMP)
		return 1;
	load(skb, START + inner->ihl * 4, &type, 1);
	return type == 0 || type == 8 || type > 12;
}

/* Turns the packet into the ICMP message "fragmentation needed" (RFC 1191 section 4) and lets it arrive at tunl0.

   It comes from the inner destination, as Linux's own tunnels have it (net/ipv4/ip_tunnel_core.c): an address that
   the way back leads to, so that the reverse path filter takes it. */
INLINE int tell_sender(struct __sk_buff *skb, struct iphdr *inner, __u32 mtu)
{
	struct {
		struct iphdr ip;
		__u8 type, code;
		__u16 checksum, unused, mtu;
		__u8 quote[QUOTE];
	} answer = {};
	struct mac mac = {MAC_HEAD, MAC_TAIL};

	if (load(skb, START, answer.quote, QUOTE))
		return drop(TOO_BIG, skb);
	count(TOO_BIG, skb->gso_segs ?: 1, skb->len - START);
	answer.ip.version = VERSION_4;
	answer.ip.ihl = 5;
	answer.ip.tos = 0xc0; /* internetwork control: RFC 1812 section 4.3.2.5 */
	answer.ip.tot_len = BE16(sizeof(answer));
	answer.ip.ttl = TIME_TO_LIVE;
	answer.ip.protocol = ICMP;
	answer.ip.saddr = inner->daddr;
	answer.ip.daddr = inner->saddr;
	answer.ip.check = header_checksum(&answer.ip);
	answer.type = 3;
	answer.code = 4;
	answer.mtu = BE16(mtu);
	answer.checksum = ~folded(csum_difference(0, 0, (void *)&answer.type, sizeof(answer) - HEADER, 0));
	if (change_tail(skb, START + sizeof(answer), 0) || store(skb, START, &answer, sizeof(answer), 0) ||
	    store(skb, 0, &mac, sizeof(mac), 0))
		return TC_ACT_SHOT;
	return redirect(skb->ifindex, BPF_F_INGRESS);
}

/* Asks the FIB for the way of a packet of such a header, and whether so many bytes may go that way; 0: however many. */
INLINE long find_uplink(struct __sk_buff *skb, struct bpf_fib_lookup *way, struct iphdr *header, __u32 length)
{
	__builtin_memset(way, 0, sizeof(*way));
	way->family = AF_INET;
	way->l4_protocol = header->protocol;
	way->tot_len = length;
	way->ifindex = skb->ifindex;
	way->ipv4_src = header->saddr;
	way->ipv4_dst = header->daddr;
	return fib_lookup(skb, way, sizeof(*way), 0);
}

/* Hands a packet to the neighbour that the FIB named. One that has to wait for the neighbour's answer is sent by its
   route's neighbour afterwards, and the route that it carries is that of the time when it came (net/core/neighbour.c,
   __neigh_update): then the kernel shall look for itself. */
INLINE int send_by(struct bpf_fib_lookup *way, long found)
{
	struct bpf_redir_neigh neighbour = {.nh_family = AF_INET};

	if (found == BPF_FIB_LKUP_RET_NO_NEIGH)
		return redirect_neighbour(way->ifindex, 0, 0, 0);
	if (way->family == AF_INET) {
		neighbour.ipv4_nh = way->ipv4_dst;
	} else {
		neighbour.nh_family = AF_INET6;
		__builtin_memcpy(neighbour.ipv6_nh, way->ipv6_dst, sizeof(neighbour.ipv6_nh));
	}
	return redirect_neighbour(way->ifindex, &neighbour, sizeof(neighbour), 0);
}

enum next { NODE, ELSEWHERE, NOWHERE };

/* Asks the FIB which node a packet's route leads to: NODE, the gateway of the very route that brought the packet here. No
   copy of it can be out of date.

   The route may have moved meanwhile, on another processor. ELSEWHERE: the packet goes where its route leads now, as the
   next one will. Between the two questions it may have come back, so they are asked again; NOWHERE is the answer of all. */
INLINE enum next find_node(struct __sk_buff *skb, struct bpf_fib_lookup *way, struct iphdr *inner, long *found)
{
	for (int tries = 0; tries < TRIES; tries++) {
		__builtin_memset(way, 0, sizeof(*way));
		way->family = AF_INET;
		way->ifindex = skb->ifindex;
		way->ipv4_src = inner->saddr;
		way->ipv4_dst = inner->daddr;
		*found = fib_lookup(skb, way, sizeof(*way), BPF_FIB_LOOKUP_OUTPUT);
		if (*found == BPF_FIB_LKUP_RET_SUCCESS || *found == BPF_FIB_LKUP_RET_NO_NEIGH ||
		    *found == BPF_FIB_LKUP_RET_FRAG_NEEDED)
			return NODE;
		*found = find_uplink(skb, way, inner, 0);
		if ((*found == BPF_FIB_LKUP_RET_SUCCESS || *found == BPF_FIB_LKUP_RET_NO_NEIGH) &&
		    way->ifindex != skb->ifindex)
			return ELSEWHERE;
	}
	return NOWHERE;
}

SECTION("tc/encapsulate") int encapsulate(struct __sk_buff *skb)
{
	__u32 zero = 0, limit = 0, size, length, local_limit = 0;
	struct settings *ours = map_lookup(&settings, &zero);
	struct bpf_fib_lookup way;
	struct iphdr inner, outer = {.version = VERSION_4, .ihl = 5, .ttl = TIME_TO_LIVE, .protocol = IPIP};
	struct iphdr *header = network(skb, HEADER);
	struct peer *peer;
	enum next next;
	long found;

	if (!ours || !header || skb->protocol != BE16(ETH_P_IP) || header->version != VERSION_4 || header->ihl < 5)
		return drop(MALFORMED, skb);
	inner = *header;

	next = find_node(skb, &way, &inner, &found);
	if (next == ELSEWHERE)
		return send_by(&way, found);
	if (next == NOWHERE)
		return drop(NO_ROUTE, skb);
	/* A node's own address through the tunnel would come back to us without end: RFC 2003 section 3.1. */
	if (way.family != AF_INET || way.ipv4_dst == inner.daddr)
		return drop(NO_ROUTE, skb);
	outer.daddr = way.ipv4_dst;
	outer.saddr = ours->local;
	outer.tos = inner.tos; /* the congestion bits too: RFC 6040 section 4.1 */
	outer.frag_off = inner.frag_off & DONT_FRAGMENT;

	/* Which uplink, and what it and the path to the node carry. */
	size = wire_length(skb, inner.ihl * 4, inner.protocol);
	found = find_uplink(skb, &way, &outer, size + HEADER);
	if (found == BPF_FIB_LKUP_RET_FRAG_NEEDED) {
		limit = local_limit = way.mtu_result;
		find_uplink(skb, &way, &outer, 0); /* the answer above does not name the uplink */
	} else if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH) {
		return drop(NO_UPLINK, skb);
	}
	if (way.ifindex == skb->ifindex)
		return drop(NO_UPLINK, skb);
	peer = map_lookup(&peers, &outer.daddr);
	if (peer && peer->mtu && peer->until > now() && size + HEADER > peer->mtu && (!limit || peer->mtu < limit))
		limit = peer->mtu;
	if (limit && outer.frag_off) {
		if (limit < MINIMUM_MTU || !answerable(skb, &inner))
			return drop(TOO_BIG, skb);
		return tell_sender(skb, &inner, limit - HEADER);
	}

	if (!outer.frag_off)
		outer.id = random32(); /* told apart when put together: RFC 6864 section 4.3 */
	length = skb->len - START + HEADER;
	outer.tot_len = length > 0xffff ? 0 : BE16(length); /* longer: many packets, each gets its own when cut up */
	outer.check = header_checksum(&outer);
	if (adjust_room(skb, HEADER, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_FIXED_GSO) &&
	    /* It is a tunnel's packet already, by a pod's own tunnel or one of ours that it came out of. */
	    adjust_room(skb, HEADER, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return drop(REFUSED, skb);
	if (store(skb, START, &outer, sizeof(outer), 0))
		return drop(REFUSED, skb);
	count(SENT, skb->gso_segs ?: 1, length - HEADER);
	if (local_limit)
		return TC_ACT_OK; /* to tunl0's other end, where the kernel forwards it to the uplink, in pieces */
	return send_by(&way, found);
}

/* Notes what a router says that it can carry to a node: RFC 1191 section 4, about packets of ours alone. */
INLINE int learn_path(struct __sk_buff *skb)
{
	struct {
		__u8 type, code;
		__u16 checksum, unused, mtu;
		struct iphdr quote;
	} message;
	__u32 zero = 0, mtu;
	struct settings *ours = map_lookup(&settings, &zero);
	struct peer *peer;

	if (load(skb, START + HEADER, &message, sizeof(message)) || message.type != 3 || message.code != 4)
		return TC_ACT_UNSPEC;
	if (!ours || message.quote.protocol != IPIP || message.quote.saddr != ours->local)
		return TC_ACT_UNSPEC;
	peer = map_lookup(&peers, &message.quote.daddr);
	if (!peer)
		return TC_ACT_UNSPEC;
	mtu = BE16(message.mtu);
	if (mtu < MINIMUM_MTU)
		mtu = MINIMUM_MTU;
	if (mtu < BE16(message.quote.tot_len)) {
		peer->mtu = mtu;
		peer->until = now() + PATH_MTU_NANOSECONDS;
	}
	return TC_ACT_UNSPEC;
}

/* Says to the verifier that a length, tested before, is 1 to LONGEST_HALF; clang must not undo it. */
INLINE __u32 bounded(__u32 length)
{
	length = (length - 1) & (LONGEST_HALF - 1);
	asm volatile("" : "+r"(length));
	return length + 1;
}

INLINE long load_half(struct __sk_buff *skb, struct half *half, __u32 length)
{
	if (!length || length > LONGEST_HALF)
		return -1;
	half->length = length;
	return load(skb, START + HEADER, half->data, bounded(length));
}

INLINE long store_half(struct __sk_buff *skb, struct half *half, __u32 offset)
{
	return store(skb, START + HEADER + offset, half->data, bounded(half->length), BPF_F_RECOMPUTE_CSUM);
}

/* Puts together an outer packet that was cut in two, which is what a path does that is a little too narrow; the kernel
   would do it for a driver that it knows. Returns 1: it is whole now, 0: one half waits, -1: it cannot be done. */
INLINE int join(struct __sk_buff *skb, struct iphdr outer)
{
	__u32 length = BE16(outer.tot_len) - HEADER, offset = BE16(outer.frag_off & FRAGMENT_OFFSET) * 8;
	__u32 slot = (outer.id ^ (outer.saddr >> 24)) & (HALVES - 1), scratch = HALVES, total;
	struct half *waiting = map_lookup(&halves, &slot), *ours = map_lookup(&halves, &scratch);
	int first = !offset;

	if (!waiting || !ours || (!first && (outer.frag_off & MORE_FRAGMENTS)) || BE16(outer.tot_len) <= HEADER)
		return -1;
	if (waiting->until < now() || waiting->source != outer.saddr || waiting->id != outer.id ||
	    waiting->first == first || (first ? waiting->offset != length : waiting->length != offset)) {
		waiting->until = 0;
		if (load_half(skb, waiting, length))
			return -1;
		waiting->source = outer.saddr;
		waiting->id = outer.id;
		waiting->first = first;
		waiting->service = outer.tos;
		waiting->offset = offset;
		waiting->until = now() + HALF_NANOSECONDS;
		return 0;
	}
	waiting->until = 0;
	total = waiting->length + length;
	if (load_half(skb, ours, length) || change_tail(skb, START + HEADER + total, 0) ||
	    store_half(skb, first ? ours : waiting, 0) || store_half(skb, first ? waiting : ours, first ? length : offset))
		return -1;
	if ((waiting->service & 3) == 3)
		outer.tos |= 3; /* RFC 3168 section 5.3 */
	outer.frag_off = 0;
	outer.tot_len = BE16(total + HEADER);
	return store(skb, START, &outer, sizeof(outer), BPF_F_RECOMPUTE_CSUM) ? -1 : 1;
}

SECTION("tc/decapsulate") int decapsulate(struct __sk_buff *skb)
{
	__u32 zero = 0, length;
	struct settings *ours;
	struct iphdr *outer, *inner;
	__u8 service, mark;

	if (skb->protocol != BE16(ETH_P_IP) || skb->vlan_present || skb->pkt_type != PACKET_HOST)
		return TC_ACT_UNSPEC;
	outer = network(skb, HEADER);
	if (!outer || (outer->protocol != IPIP && outer->protocol != ICMP))
		return TC_ACT_UNSPEC;
	ours = map_lookup(&settings, &zero);
	if (!ours || outer->daddr != ours->local)
		return TC_ACT_UNSPEC;
	if (outer->protocol == ICMP)
		return outer->ihl == 5 ? learn_path(skb) : TC_ACT_UNSPEC;

	if (!map_lookup(&peers, &outer->saddr))
		return drop(SOURCE_NOT_ALLOWED, skb);
	if (outer->version != VERSION_4 || outer->ihl != 5 || header_checksum(outer))
		return drop(MALFORMED, skb);
	if (outer->frag_off & ANY_FRAGMENT) {
		int joined = join(skb, *outer);
		if (!joined)
			return TC_ACT_STOLEN;
		if (joined < 0)
			return drop(FRAGMENT, skb);
	}
	outer = network(skb, 2 * HEADER);
	if (!outer)
		return drop(MALFORMED, skb);
	inner = outer + 1;
	length = skb->len - START - HEADER;
	if (inner->version != VERSION_4 || inner->ihl < 5 ||
	    (!skb->gso_size && (BE16(inner->tot_len) > length || BE16(inner->tot_len) < inner->ihl * 4)))
		return drop(MALFORMED, skb);

	/* RFC 6040 section 4.2: a mark of congestion reaches whoever can read it, and costs the packet otherwise. */
	mark = outer->tos & 3;
	service = inner->tos;
	if (mark == 3 && !(service & 3))
		return drop(CONGESTION, skb);
	if (mark == 3)
		service |= 3;
	else if (mark == 1 && (service & 3) == 2)
		service = (service & ~3) | 1;

	if (adjust_room(skb, -(__s32)HEADER, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return drop(REFUSED, skb);
	inner = network(skb, HEADER);
	if (!inner)
		return drop(REFUSED, skb);
	if (inner->tos != service) {
		__u16 *first = (void *)inner, before = *first;
		inner->tos = service;
		inner->check = ~folded((__u16)~inner->check + (__u16)~before + *first); /* RFC 1624 section 3 */
	}
	*(struct mac *)(long)skb->data = (struct mac){MAC_HEAD, MAC_TAIL};
	count(RECEIVED, skb->gso_segs ?: 1, length);
	return redirect(ours->device, BPF_F_INGRESS);
}

char granted[] SECTION("license") = "GPL"; /* bpf_fib_lookup and others ask for it */
