/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Protocols with neither ports nor identifiers (GRE, ESP and the like): nothing but its addresses
 * tells whose a packet is, so one end here speaks with one elsewhere at a time.
 */
#ifndef MARGAY_PORTLESS_H
#define MARGAY_PORTLESS_H

#include "margay.h"
#include "parse.h"

/* What two ends say to each other by one protocol. IPv4 addresses as ::ffff:a.b.c.d. */
struct exchange {
	struct in6_addr near; /* the node's */
	struct in6_addr far;
	__u32 protocol;
};

/* Those that pods have in the node's name, for as long as their connections live. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 14);
	__type(key, struct exchange);
	__type(value, __u8);
} exchanges SEC(".maps");

static __always_inline bool is_portless(const struct packet *packet)
{
	switch (packet->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_SCTP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return false;
	default:
		return true;
	}
}

/* The exchange that a packet belongs to, which leaves the node or does not. */
static __always_inline struct exchange exchange_of(const struct packet *packet, bool leaves)
{
	struct exchange exchange = {
		.near = leaves ? packet->source : packet->destination,
		.far = leaves ? packet->destination : packet->source,
		.protocol = packet->protocol,
	};

	return exchange;
}

#endif
