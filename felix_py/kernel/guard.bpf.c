/* The guard of pods' interfaces in BPF: two programs for tc, and the maps that they share.

   from_pod  ingress of every cali interface: lets IP packets pass that come from an address of the pod, and are no
             tunnel's already; drops and counts the rest, and all of an interface that belongs to no known pod.
   refuse    egress of cali interfaces that belong to no known pod: drops and counts IP packets, but for this host's own
             neighbour discovery.

   Nothing here needs the agent: it writes the maps, and may die. What is not in them is dropped. Only headers of the
   kernel's own user API are used, so that clang alone can compile this. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define BE16(x) __builtin_bswap16(x)

static void *(*map_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*pull)(struct __sk_buff *, __u32 length) = (void *)BPF_FUNC_skb_pull_data;
static long (*load)(const void *, __u32 offset, void *to, __u32 length) = (void *)BPF_FUNC_skb_load_bytes;

/* --- what the agent writes and reads; felix_py/kernel/guard_maps.py knows the same layouts */

struct map {
	__u32 type, key_size, value_size, max_entries, flags;
};

struct address4 {
	__u32 device; /* index of the interface */
	__be32 source;
};

struct address6 {
	__u32 device;
	__be32 source[4];
};

struct ports {
	__be16 udp[4]; /* of tunnels over UDP; 0: none */
};

enum reason { ENCAPSULATED, SPOOFED, UNKNOWN, REASONS };

#define POD_ADDRESSES (1 << 16)

struct map SECTION("maps") pods = {BPF_MAP_TYPE_HASH, 4, 1, 1 << 14, BPF_F_NO_PREALLOC};
struct map SECTION("maps") sources = {BPF_MAP_TYPE_HASH, sizeof(struct address4), 1, POD_ADDRESSES, BPF_F_NO_PREALLOC};
struct map SECTION("maps") sources6 = {BPF_MAP_TYPE_HASH, sizeof(struct address6), 1, POD_ADDRESSES, BPF_F_NO_PREALLOC};
struct map SECTION("maps") ports = {BPF_MAP_TYPE_ARRAY, 4, sizeof(struct ports), 1, 0};
struct map SECTION("maps") counters = {BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, REASONS, 0};

/* --- */

#define IPIP 4
#define UDP 17
#define FRAGMENT_OFFSET BE16(0x1fff)
#define MOST_HEADERS 6 /* extension headers of one IPv6 packet; nobody's has as many */
#define START ((__u32)ETH_HLEN)

INLINE int drop(enum reason reason)
{
	__u32 key = reason;
	__u64 *packets = map_lookup(&counters, &key);
	if (packets)
		++*packets;
	return TC_ACT_SHOT;
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

/* Says whether a UDP header, so many bytes behind the start of the IP header, is that of a tunnel. */
INLINE int to_tunnel(struct __sk_buff *skb, __u32 offset)
{
	__u32 zero = 0;
	__be16 port = 0;
	struct ports *tunnels = map_lookup(&ports, &zero);

	if (!tunnels || load(skb, START + offset + 2, &port, sizeof(port)) || !port)
		return 0;
	return port == tunnels->udp[0] || port == tunnels->udp[1] || port == tunnels->udp[2] || port == tunnels->udp[3];
}

INLINE int unknown(struct __sk_buff *skb)
{
	__u32 device = skb->ifindex;
	return !map_lookup(&pods, &device);
}

INLINE int ipv4(struct __sk_buff *skb)
{
	struct iphdr *header = network(skb, sizeof(struct iphdr));
	struct address4 from = {.device = skb->ifindex};
	__u32 offset;

	if (!header)
		return drop(unknown(skb) ? UNKNOWN : SPOOFED);
	from.source = header->saddr;
	if (header->protocol == IPIP)
		return drop(ENCAPSULATED);
	if (header->protocol == UDP && !(header->frag_off & FRAGMENT_OFFSET)) {
		offset = header->ihl * 4;
		if (to_tunnel(skb, offset))
			return drop(ENCAPSULATED);
	}
	if (map_lookup(&sources, &from))
		return TC_ACT_UNSPEC;
	return drop(unknown(skb) ? UNKNOWN : SPOOFED);
}

/* Says whether what an IPv6 packet carries, behind its extension headers (RFC 8200 section 4), is a tunnel's packet. */
INLINE int encapsulated(struct __sk_buff *skb, __u8 next)
{
	struct {
		__u8 next, length;
		__be16 fragment;
	} extension;
	__u32 offset = sizeof(struct ipv6hdr);

#pragma unroll
	for (int i = 0; i < MOST_HEADERS; i++) {
		if (next == IPIP)
			return 1;
		if (next == UDP)
			return to_tunnel(skb, offset);
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS && next != IPPROTO_FRAGMENT &&
		    next != IPPROTO_AH)
			return 0;
		if (load(skb, START + offset, &extension, sizeof(extension)))
			return 0;
		if (next == IPPROTO_FRAGMENT && (extension.fragment & BE16(0xfff8)))
			return extension.next == IPIP;
		if (next == IPPROTO_FRAGMENT)
			offset += 8;
		else if (next == IPPROTO_AH)
			offset += (extension.length + 2) * 4;
		else
			offset += (extension.length + 1) * 8;
		next = extension.next;
	}
	return 1;
}

/* Says whether a source is that of neighbour discovery, or of the detection of duplicate addresses (RFC 4862 section
   5.4.2): neither is ever forwarded. */
INLINE int stays_on_link(const __be32 *source)
{
	if ((source[0] & __builtin_bswap32(0xffc00000)) == __builtin_bswap32(0xfe800000))
		return 1;
	return !(source[0] | source[1] | source[2] | source[3]);
}

INLINE int ipv6(struct __sk_buff *skb)
{
	struct ipv6hdr *header = network(skb, sizeof(struct ipv6hdr));
	struct address6 from = {.device = skb->ifindex};
	__u8 next;

	if (!header)
		return drop(unknown(skb) ? UNKNOWN : SPOOFED);
	__builtin_memcpy(from.source, &header->saddr, sizeof(from.source));
	next = header->nexthdr;
	if (next != IPPROTO_TCP && next != IPPROTO_ICMPV6 && encapsulated(skb, next))
		return drop(ENCAPSULATED);
	if (map_lookup(&sources6, &from))
		return TC_ACT_UNSPEC;
	if (unknown(skb))
		return drop(UNKNOWN);
	return stays_on_link(from.source) ? TC_ACT_UNSPEC : drop(SPOOFED);
}

SECTION("tc/from_pod") int from_pod(struct __sk_buff *skb)
{
	if (skb->protocol == BE16(ETH_P_IP))
		return ipv4(skb);
	if (skb->protocol == BE16(ETH_P_IPV6))
		return ipv6(skb);
	return TC_ACT_UNSPEC;
}

SECTION("tc/refuse") int refuse(struct __sk_buff *skb)
{
	struct ipv6hdr *header;
	__be32 source[4];

	if (skb->protocol == BE16(ETH_P_IP))
		return drop(UNKNOWN);
	if (skb->protocol != BE16(ETH_P_IPV6))
		return TC_ACT_UNSPEC;
	header = network(skb, sizeof(struct ipv6hdr));
	if (!header)
		return drop(UNKNOWN);
	__builtin_memcpy(source, &header->saddr, sizeof(source));
	return stays_on_link(source) ? TC_ACT_UNSPEC : drop(UNKNOWN);
}

char granted[] SECTION("license") = "GPL";
