/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The pinhole: of an uplink's traffic, only what the dataplane needs goes to its AF_XDP sockets.
 * Everything else, and whatever is odd, stays with the kernel, so that the node's own traffic never
 * depends on the dataplane.
 *
 * When no socket is there (the dataplane is dead), what is surely ours is dropped, since an answer
 * of the kernel would end connections that are to survive; what may be the node's is passed.
 */
#include "margay.h"
#include "fragments.h"
#include "parse.h"

/* Classes of addresses: bits of the tries' values. */
#define CLASS_POOL 1    /* pods: as source or destination */
#define CLASS_SERVICE 2 /* virtual addresses: as destination */
#define CLASS_NODE 4    /* the node's own: by protocol and port */

#define ENABLE_VXLAN 1
#define ENABLE_IPIP 2

#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_QUENCH 4
#define ICMP_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMP6_ERRORS_END 4
#define ICMP6_ECHO_REPLY 129
#define ICMP6_ND_FIRST 133
#define ICMP6_ND_LAST 137

struct config {
	__u32 enabled;
	__be16 vxlan_port;
	__u16 snat_first; /* host byte order; first > last: none */
	__u16 snat_last;
	__u16 reserved;
};

/* The packet's destination port is what is looked up, whoever's address it is. */
struct port {
	__u8 protocol;
	__u8 reserved;
	__be16 number;
};

/* The family comes before the address, so that ::/0 holds no IPv4: a /n of IPv4 has 128 + n bits. */
struct prefix {
	__u32 length;
	__u32 is_v6;
	struct in6_addr address;
};

SOCKETS(sockets);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} configs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, struct prefix);
	__type(value, __u32);
} classes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 18);
	__type(key, struct port);
	__type(value, __u8);
} ports SEC(".maps");

static __always_inline __u32 class_of(const struct packet *packet, const struct in6_addr *address)
{
	struct prefix key = { .length = 160, .is_v6 = packet->is_v6, .address = *address };
	__u32 *class = bpf_map_lookup_elem(&classes, &key);

	return class ? *class : 0;
}

static __always_inline bool is_neighbour_discovery(const struct packet *packet)
{
	return packet->is_v6 && packet->protocol == IPPROTO_ICMPV6 &&
	       packet->icmp_type >= ICMP6_ND_FIRST && packet->icmp_type <= ICMP6_ND_LAST;
}

/* What may answer a translated packet: it belongs to a flow of ours or to the node itself. */
static __always_inline bool is_icmp_answer(const struct packet *packet)
{
	__u8 type = packet->icmp_type;

	if (packet->is_v6)
		return packet->protocol == IPPROTO_ICMPV6 &&
		       ((type >= 1 && type <= ICMP6_ERRORS_END) || type == ICMP6_ECHO_REPLY);
	return packet->protocol == IPPROTO_ICMP &&
	       (type == ICMP_ECHO_REPLY || type == ICMP_UNREACHABLE || type == ICMP_QUENCH ||
		type == ICMP_EXCEEDED || type == ICMP_PARAMETER);
}

static __always_inline bool is_in_snat_range(const struct config *config,
					     const struct packet *packet)
{
	__u16 port = bpf_ntohs(packet->destination_port);

	/* Only protocols with ports have one that is not 0, and the range never holds 0. */
	return port >= config->snat_first && port <= config->snat_last;
}

static __always_inline bool is_tunnel(const struct config *config, const struct packet *packet)
{
	if (packet->protocol == IPPROTO_IPIP)
		return config->enabled & ENABLE_IPIP;
	return packet->protocol == IPPROTO_UDP && (config->enabled & ENABLE_VXLAN) &&
	       packet->destination_port == config->vxlan_port;
}

static __always_inline bool is_our_port(const struct packet *packet)
{
	struct port key = { .protocol = packet->protocol, .number = packet->destination_port };

	return bpf_map_lookup_elem(&ports, &key) != NULL;
}

/* Nothing of a packet to the node is for the dataplane. */
#define NOT_OURS XDP_ABORTED

/*
 * What becomes of a packet to the node that is for the dataplane when that is dead: XDP_DROP of
 * what is surely ours, XDP_PASS of what may be the node's. Otherwise NOT_OURS.
 */
static __always_inline __u32 fallback_by_header(const struct packet *packet)
{
	__u32 zero = 0;
	const struct config *config = bpf_map_lookup_elem(&configs, &zero);

	if (config && (is_tunnel(config, packet) || is_our_port(packet) ||
		       is_in_snat_range(config, packet)))
		return XDP_DROP;
	return is_icmp_answer(packet) ? XDP_PASS : NOT_OURS;
}

/* The same for fragments too: later ones go the way of their first. */
static __always_inline __u32 fallback_at_node(const struct packet *packet)
{
	struct datagram datagram = {
		.source = packet->source,
		.destination = packet->destination,
		.identification = packet->identification,
		.protocol = packet->protocol,
	};
	__u32 fallback;

	if (packet->later_fragment) {
		const __u32 *note = remembered(&datagram);

		return note ? *note : NOT_OURS;
	}
	fallback = fallback_by_header(packet);
	if (packet->first_fragment && fallback != NOT_OURS)
		remember_datagram(&datagram, fallback);
	return fallback;
}

SEC("xdp")
int uplink(struct xdp_md *ctx)
{
	struct packet packet = {};
	__u32 class;

	if (!parse(&packet, (void *)(long)ctx->data, (void *)(long)ctx->data_end) ||
	    is_neighbour_discovery(&packet))
		return XDP_PASS;

	class = class_of(&packet, &packet.destination);
	if (class & (CLASS_POOL | CLASS_SERVICE))
		return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP);
	if (class & CLASS_NODE) {
		__u32 fallback = fallback_at_node(&packet);

		if (fallback != NOT_OURS)
			return bpf_redirect_map(&sockets, ctx->rx_queue_index, fallback);
	}
	if (class_of(&packet, &packet.source) & CLASS_POOL)
		return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
