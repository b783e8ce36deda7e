/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* From a frame to what the programs decide by, in one form for IPv4 and IPv6. */
#ifndef MARGAY_PARSE_H
#define MARGAY_PARSE_H

#include "margay.h"

#define IP_MORE_FRAGMENTS 0x2000
#define IP_OFFSET 0x1fff
#define IP6_OFFSET 0xfff8
#define IP6_MORE_FRAGMENTS 0x0001

/* IPv6 extension headers that are looked through, as many as the dataplane looks through. */
#define MAX_EXTENSIONS 8

/* One packet. Numbers are as on the wire unless it says otherwise. */
struct packet {
	/* IPv4 addresses as ::ffff:a.b.c.d (RFC 4291 2.5.5.2). */
	struct in6_addr source;
	struct in6_addr destination;
	/* 0 in later fragments and in protocols without ports. */
	__be16 source_port;
	__be16 destination_port;
	/* IPv4's is in the lower half. */
	__be32 identification;
	__u8 protocol;
	__u8 icmp_type;
	bool is_v6;
	/* The first of several fragments, or one after it. Neither in a whole packet. */
	bool first_fragment;
	bool later_fragment;
};

struct ipv6_extension {
	__u8 next;
	__u8 length; /* in units of 8 bytes, the first 8 not counted */
};

struct ipv6_fragment {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 identification;
};

/* Ports, or the ICMP type. False if the packet ends before them. */
static __always_inline bool parse_transport(struct packet *packet, void *at, void *end)
{
	__be16 *ports = at;
	__u8 *type = at;

	switch (packet->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_SCTP:
		if ((void *)(ports + 2) > end)
			return false;
		packet->source_port = ports[0];
		packet->destination_port = ports[1];
		return true;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if ((void *)(type + 1) > end)
			return false;
		packet->icmp_type = *type;
		return true;
	default:
		return true;
	}
}

static __always_inline struct in6_addr mapped(__be32 address)
{
	struct in6_addr result = {};

	result.s6_addr32[2] = bpf_htonl(0xffff);
	result.s6_addr32[3] = address;
	return result;
}

static __always_inline bool parse_ipv4(struct packet *packet, void *at, void *end)
{
	struct iphdr *ip = at;
	__u16 offset;

	if ((void *)(ip + 1) > end || ip->ihl < 5)
		return false;
	packet->source = mapped(ip->saddr);
	packet->destination = mapped(ip->daddr);
	packet->protocol = ip->protocol;
	packet->identification = ip->id;
	offset = bpf_ntohs(ip->frag_off);
	packet->later_fragment = offset & IP_OFFSET;
	packet->first_fragment = !packet->later_fragment && (offset & IP_MORE_FRAGMENTS);
	return packet->later_fragment || parse_transport(packet, at + ip->ihl * 4, end);
}

static __always_inline bool parse_ipv6(struct packet *packet, void *at, void *end)
{
	struct ipv6hdr *ip = at;
	__u8 next;

	if ((void *)(ip + 1) > end)
		return false;
	packet->is_v6 = true;
	packet->source = ip->saddr;
	packet->destination = ip->daddr;
	next = ip->nexthdr;
	at = ip + 1;
	for (int i = 0; i <= MAX_EXTENSIONS; i++) {
		struct ipv6_extension *extension = at;
		struct ipv6_fragment *fragment = at;

		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
			if ((void *)(extension + 1) > end)
				return false;
			next = extension->next;
			at += (extension->length + 1) * 8;
			break;
		case IPPROTO_FRAGMENT:
			if ((void *)(fragment + 1) > end)
				return false;
			next = fragment->next;
			packet->identification = fragment->identification;
			packet->later_fragment = fragment->offset & bpf_htons(IP6_OFFSET);
			packet->first_fragment = !packet->later_fragment &&
						 (fragment->offset & bpf_htons(IP6_MORE_FRAGMENTS));
			packet->protocol = next;
			if (packet->later_fragment)
				return true;
			at = fragment + 1;
			break;
		default:
			packet->protocol = next;
			return parse_transport(packet, at, end);
		}
	}
	return false;
}

/* Whether a frame that cannot be parsed is IP all the same. */
static __always_inline bool is_ip(void *data, void *end)
{
	struct ethhdr *ethernet = data;

	return (void *)(ethernet + 1) <= end && (ethernet->h_proto == bpf_htons(ETH_P_IP) ||
						 ethernet->h_proto == bpf_htons(ETH_P_IPV6));
}

/*
 * False for what is not whole, not IP, or odd, and for tagged frames: the kernel's business.
 * `packet` is zeroed by the caller.
 */
static __always_inline bool parse(struct packet *packet, void *data, void *end)
{
	struct ethhdr *ethernet = data;

	if ((void *)(ethernet + 1) > end)
		return false;
	switch (ethernet->h_proto) {
	case bpf_htons(ETH_P_IP):
		return parse_ipv4(packet, ethernet + 1, end);
	case bpf_htons(ETH_P_IPV6):
		return parse_ipv6(packet, ethernet + 1, end);
	default:
		return false;
	}
}

#endif
