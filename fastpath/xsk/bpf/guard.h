/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * An uplink with a host endpoint: its traffic goes to the dataplane, both ways. What must not depend
 * on the dataplane is decided here: ports that no policy can close, with their answers, and what a
 * link needs to work at all. The programs of both ways share the connections of such ports.
 */
#ifndef MARGAY_GUARD_H
#define MARGAY_GUARD_H

#include "margay.h"
#include "parse.h"

#define ICMP_UNREACHABLE 3
#define ICMP_QUENCH 4
#define ICMP_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMP6_ERRORS_END 4
#define ICMP6_MLD_FIRST 130
#define ICMP6_MLD_LAST 132
#define ICMP6_ND_FIRST 133
#define ICMP6_ND_LAST 137
#define ICMP6_MLD2 143

/* A port and the networks of the far end: the number and protocol count whole, then the family. */
struct failsafe {
	__u32 length;
	__be16 port;
	__u8 protocol;
	__u8 is_v6;
	struct in6_addr far;
};

/* A connection of such a port, as the node sees it. */
struct safe_flow {
	struct in6_addr near;
	struct in6_addr far;
	__be16 near_port;
	__be16 far_port;
	__u32 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct failsafe);
	__type(value, __u8);
} failsafes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct safe_flow);
	__type(value, __u8);
} safe_flows SEC(".maps");

/* Neighbour discovery. */
static __always_inline bool is_neighbour_discovery(const struct packet *packet)
{
	return packet->is_v6 && packet->protocol == IPPROTO_ICMPV6 &&
	       packet->icmp_type >= ICMP6_ND_FIRST && packet->icmp_type <= ICMP6_ND_LAST;
}

/* What a link needs: the above, and who listens to which group (RFC 3376, RFC 3810). */
static __always_inline bool is_upkeep(const struct packet *packet)
{
	__u8 type = packet->icmp_type;

	if (is_neighbour_discovery(packet))
		return true;
	if (!packet->is_v6)
		return packet->protocol == IPPROTO_IGMP;
	return packet->protocol == IPPROTO_ICMPV6 &&
	       ((type >= ICMP6_MLD_FIRST && type <= ICMP6_MLD_LAST) || type == ICMP6_MLD2);
}

/* Errors: whoever gets one looks for the connection that it quotes. */
static __always_inline bool is_icmp_error(const struct packet *packet)
{
	__u8 type = packet->icmp_type;

	if (packet->is_v6)
		return packet->protocol == IPPROTO_ICMPV6 && type >= 1 && type <= ICMP6_ERRORS_END;
	return packet->protocol == IPPROTO_ICMP &&
	       (type == ICMP_UNREACHABLE || type == ICMP_QUENCH || type == ICMP_EXCEEDED ||
		type == ICMP_PARAMETER);
}

/* Whether the packet asks for one of the ports of this direction; `far` is the end that is not us. */
static __always_inline bool asks_failsafe(const struct packet *packet, const struct in6_addr *far)
{
	struct failsafe key = {
		.length = 160,
		.port = packet->destination_port,
		.protocol = packet->protocol,
		.is_v6 = packet->is_v6,
		.far = *far,
	};

	return bpf_map_lookup_elem(&failsafes, &key) != NULL;
}

/*
 * Whether the packet, which leaves the node or does not, is of a connection of such a port. The
 * first packet and all others of its direction open the way for the answers.
 */
static __always_inline bool is_failsafe(const struct packet *packet, bool leaves)
{
	struct safe_flow flow = {
		.near = leaves ? packet->source : packet->destination,
		.far = leaves ? packet->destination : packet->source,
		.near_port = leaves ? packet->source_port : packet->destination_port,
		.far_port = leaves ? packet->destination_port : packet->source_port,
		.protocol = packet->protocol,
	};
	__u8 one = 1;

	if (bpf_map_lookup_elem(&safe_flows, &flow))
		return true;
	if (!asks_failsafe(packet, &flow.far))
		return false;
	bpf_map_update_elem(&safe_flows, &flow, &one, BPF_ANY);
	return true;
}

#endif
