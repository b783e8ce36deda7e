/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the programs of the shortcut share: the directions that user space has approved, what is
 * counted of them, and how a packet is told to be one of theirs.
 */
#ifndef MARGAY_PASSAGE_H
#define MARGAY_PASSAGE_H

#include "margay.h"
#include "parse.h"

/* Directions that are approved at one time, at most. */
#define MAX_PASSAGES 4096
/* Ports that are counted; those with higher numbers share the last counters. */
#define MAX_PORTS 4096

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define IP_VERSION_4 0x45 /* and a header without options */
#define IP_FRAGMENT 0x3fff
#define JUMBO_OPTION 8

/* What stands before a packet within VXLAN over IPv4 (RFC 7348). */
struct vxlan_cover {
	struct ethhdr ethernet;
	struct iphdr ip;
	struct udphdr udp;
	__u8 vxlan[8];
	struct ethhdr inner;
} __attribute__((packed));

/* How much stands before an IP packet: that, an IPv4 header (RFC 2003), Ethernet alone. */
#define COVER_VXLAN sizeof(struct vxlan_cover)
#define COVER_IPIP (ETH_HLEN + sizeof(struct iphdr))
#define COVER_NONE ETH_HLEN

/* One direction of a connection, as its packets come. */
struct passage_key {
	struct in6_addr source;
	struct in6_addr destination;
	__be16 source_port;
	__be16 destination_port;
	/* The host end of the pod's veth, or the uplink. */
	__u32 ifindex;
	/* 4 or 6: the addresses do not tell, an IPv6 packet may carry mapped ones. */
	__u16 family;
	/* TCP or UDP. */
	__u16 protocol;
};

#define PASSAGE_TRANSLATED 1
#define PASSAGE_TO_UPLINK 2

struct passage {
	/* What it has moved: segments, and bytes of their IP packets. */
	__u64 packets;
	__u64 bytes;
	/* Good while this is the generation in force; 0 when the connection has begun to end. */
	__u32 generation;
	/* The uplink, or the host end of the veth, by which its packets leave. */
	__u32 ifindex;
	/* Numbers of both ports. */
	__u16 from;
	__u16 to;
	/* The largest IP packet that may leave, without what is put around it. */
	__u16 mtu;
	/* Lengths of the last two members; the second is 0 where the packets come from a pod. */
	__u8 cover_len;
	__u8 expected_len;
	/* What its packets leave with, where a service stands between. */
	__be16 new_ports[2];
	__u32 flags;
	struct in6_addr new_addresses[2];
	/* What its packets leave behind; lengths, class, identification and checksum are filled in. */
	__u8 cover[COVER_VXLAN];
	/* What they come behind; the same fields and the Ethernet source may be any. */
	__u8 expected[COVER_VXLAN];
	/* The flow's part of outer identifications. */
	__u16 identification;
};

/* What the shortcut has moved in and out of a port: segments, bytes of their Ethernet frames. */
struct port_count {
	__u64 received;
	__u64 received_bytes;
	__u64 sent;
	__u64 sent_bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PASSAGES);
	__type(key, struct passage_key);
	__type(value, struct passage);
} passages SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, struct port_count);
} port_counts SEC(".maps");

/* The generation in force; 0 where there is no shortcut. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} generation SEC(".maps");

/* What a frame is, if the shortcut could take it. Offsets and lengths are those of a plain frame. */
struct segment {
	struct passage_key key;
	/* Where the transport header begins. */
	__u32 transport;
	/* Length of all headers, Ethernet's too. */
	__u32 headers;
	__u16 ip_checksum;
	/* Of IPv4, as on the wire. */
	__be16 identification;
	__be16 fragment;
	__u8 class;
	__u8 ttl;
	/* Of TCP. */
	__u8 flags;
	/* Length of the datagram, as UDP's header has it; 0 in TCP. */
	__u16 datagram;
	/* Length of what the kernel has put between the headers of a super-frame. */
	__u8 option;
};

/* RFC 1071: the sum of an IPv4 header without options, which with a right checksum is 0xffff. */
static __always_inline __u16 header_sum(const void *ip)
{
	const __u16 *words = ip;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __always_inline bool read_ipv4(struct segment *segment, struct iphdr *ip, void *end)
{
	if ((void *)(ip + 1) > end || *(__u8 *)ip != IP_VERSION_4)
		return false;
	segment->key.source = mapped(ip->saddr);
	segment->key.destination = mapped(ip->daddr);
	segment->key.family = 4;
	segment->key.protocol = ip->protocol;
	segment->ip_checksum = ip->check;
	segment->identification = ip->id;
	segment->fragment = ip->frag_off;
	segment->class = ip->tos;
	segment->ttl = ip->ttl;
	segment->transport = ETH_HLEN + sizeof(*ip);
	return true;
}

/* `joined`: the kernel may have put the length of a super-frame into an option (RFC 2675). */
static __always_inline bool read_ipv6(struct segment *segment, struct ipv6hdr *ip, void *end,
				      bool joined)
{
	struct ipv6_extension *option = (void *)(ip + 1);

	if ((void *)(ip + 1) > end || ip->version != 6)
		return false;
	segment->key.protocol = ip->nexthdr;
	if (joined && ip->nexthdr == IPPROTO_HOPOPTS) {
		if ((void *)(option + 1) > end || option->next != IPPROTO_TCP || option->length)
			return false;
		segment->key.protocol = option->next;
		segment->option = JUMBO_OPTION;
	}
	segment->key.source = ip->saddr;
	segment->key.destination = ip->daddr;
	segment->key.family = 6;
	segment->ttl = ip->hop_limit;
	segment->transport = ETH_HLEN + sizeof(*ip) + segment->option;
	return true;
}

static __always_inline bool read_tcp(struct segment *segment, struct tcphdr *tcp, void *end)
{
	if ((void *)(tcp + 1) > end || tcp->doff < 5)
		return false;
	segment->key.source_port = tcp->source;
	segment->key.destination_port = tcp->dest;
	segment->flags = ((__u8 *)tcp)[13];
	segment->headers = segment->transport + tcp->doff * 4;
	return true;
}

/* Over IPv6 there is always a checksum (RFC 8200 8.1). */
static __always_inline bool read_udp(struct segment *segment, struct udphdr *udp, void *end)
{
	if ((void *)(udp + 1) > end || bpf_ntohs(udp->len) < sizeof(*udp) ||
	    (segment->key.family == 6 && !udp->check))
		return false;
	segment->key.source_port = udp->source;
	segment->key.destination_port = udp->dest;
	segment->datagram = bpf_ntohs(udp->len);
	segment->headers = segment->transport + sizeof(*udp);
	return true;
}

/*
 * Headers beyond the linear part, tags, options: the dataplane's business. `ip` is where the IP header
 * begins, `kind` what stands before it says of it.
 */
static __always_inline bool read_segment(struct segment *segment, void *ip, void *end, __be16 kind,
					 bool joined)
{
	void *transport;

	if (kind == bpf_htons(ETH_P_IP)) {
		if (!read_ipv4(segment, ip, end))
			return false;
		transport = ip + sizeof(struct iphdr);
	} else if (kind == bpf_htons(ETH_P_IPV6)) {
		if (!read_ipv6(segment, ip, end, joined))
			return false;
		transport = ip + sizeof(struct ipv6hdr);
		if (joined && segment->option)
			transport += JUMBO_OPTION;
	} else {
		return false;
	}
	switch (segment->key.protocol) {
	case IPPROTO_TCP:
		return read_tcp(segment, transport, end);
	case IPPROTO_UDP:
		return read_udp(segment, transport, end);
	default:
		return false;
	}
}

/*
 * Whether what was read is a whole packet of `length` bytes that may be forwarded. The kernel leaves
 * IPv4's checksum to no device.
 */
static __always_inline bool is_whole(const struct segment *segment, void *at, void *end,
				     __u32 length)
{
	struct iphdr *ip = at;
	struct ipv6hdr *ip6 = at;

	if (segment->headers - ETH_HLEN > length || segment->ttl <= 1)
		return false;
	/* What has something behind its datagram (RFC 9868) is the dataplane's. */
	if (segment->datagram && segment->transport - ETH_HLEN + segment->datagram != length)
		return false;
	if (segment->key.family == 4)
		return (void *)(ip + 1) <= end && !(ip->frag_off & bpf_htons(IP_FRAGMENT)) &&
		       bpf_ntohs(ip->tot_len) == length && header_sum(ip) == 0xffff;
	return (void *)(ip6 + 1) <= end &&
	       bpf_ntohs(ip6->payload_len) + sizeof(*ip6) == length;
}

/*
 * The passage of a packet in force, NULL if there is none. The dataplane is to see how connections
 * begin and end.
 */
static __always_inline struct passage *passage_of(const struct segment *segment)
{
	__u32 zero = 0, *in_force = bpf_map_lookup_elem(&generation, &zero);
	struct passage *passage = bpf_map_lookup_elem(&passages, &segment->key);

	if (!passage || !in_force)
		return NULL;
	if (segment->flags & (TCP_FIN | TCP_SYN | TCP_RST)) {
		passage->generation = 0;
		return NULL;
	}
	return passage->generation == *in_force ? passage : NULL;
}

static __always_inline bool is_in_force(void)
{
	__u32 zero = 0, *in_force = bpf_map_lookup_elem(&generation, &zero);

	return in_force && *in_force;
}

#endif
