/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The pinhole: of an uplink's traffic, only what the dataplane needs goes to its AF_XDP sockets.
 * Everything else, and whatever is odd, stays with the kernel, so that the node's own traffic never
 * depends on the dataplane.
 *
 * When no socket is there (the dataplane is dead), what is surely ours is dropped, since an answer
 * of the kernel would end connections that are to survive; what may be the node's is passed.
 *
 * With a host endpoint on the uplink all of its IP traffic goes to the dataplane, and is dropped where
 * that is dead; only what must not depend on it is the kernel's: see guard.h.
 */
#include "margay.h"
#include "admit.h"
#include "fragments.h"
#include "guard.h"
#include "parse.h"
#include "portless.h"

/* Classes of addresses: bits of the tries' values. */
#define CLASS_POOL 1    /* pods: as source or destination */
#define CLASS_SERVICE 2 /* virtual addresses: as destination */
#define CLASS_NODE 4    /* the node's own: by protocol and port */

#define ENABLE_VXLAN 1
#define ENABLE_IPIP 2
#define ENABLE_GUARD 4

#define ICMP_ECHO_REPLY 0
#define ICMP_TIMESTAMP_REPLY 14
#define ICMP_INFO_REPLY 16
#define ICMP_MASK_REPLY 18
#define ICMP6_ECHO_REPLY 129
#define DHCP_CLIENT 68

struct config {
	__u32 enabled;
	__be16 vxlan_port;
	__u16 snat_first; /* host byte order; first > last: none */
	__u16 snat_last;
	/* The range before that one: connections of then have ports of it. */
	__u16 former_first;
	__u16 former_last;
	/* Source of frames that have been let in: what generic XDP sees again. */
	__u8 arrival[ETH_ALEN];
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

/* Whether one of the addresses, as far as they were read, is a pod's, or that of who is asked a service's. */
static __always_inline bool is_of_pods(const struct packet *packet)
{
	return (class_of(packet, &packet->destination) & (CLASS_POOL | CLASS_SERVICE)) ||
	       (class_of(packet, &packet->source) & CLASS_POOL);
}

/* What may answer a translated packet: it belongs to a flow of ours or to the node itself. */
static __always_inline bool is_icmp_answer(const struct packet *packet)
{
	__u8 type = packet->icmp_type;

	if (is_icmp_error(packet))
		return true;
	if (packet->is_v6)
		return packet->protocol == IPPROTO_ICMPV6 && type == ICMP6_ECHO_REPLY;
	return packet->protocol == IPPROTO_ICMP &&
	       (type == ICMP_ECHO_REPLY || type == ICMP_TIMESTAMP_REPLY ||
		type == ICMP_INFO_REPLY || type == ICMP_MASK_REPLY);
}

/* What a pod is told that has asked in the node's name, by a protocol without ports. */
static __always_inline bool is_portless_answer(const struct packet *packet)
{
	struct exchange key = exchange_of(packet, false);

	return is_portless(packet) && bpf_map_lookup_elem(&exchanges, &key);
}

static __always_inline bool is_in_snat_range(const struct config *config,
					     const struct packet *packet)
{
	__u16 port = bpf_ntohs(packet->destination_port);

	/* Only protocols with ports have one that is not 0, and no range holds 0. */
	return (port >= config->snat_first && port <= config->snat_last) ||
	       (port >= config->former_first && port <= config->former_last);
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
/* What is known of a datagram of a failsafe port. */
#define SAFE XDP_TX

/*
 * What becomes of a packet to the node that is for the dataplane when that is dead: XDP_DROP of
 * what is surely ours, XDP_PASS of what may be the node's. Otherwise NOT_OURS.
 */
static __always_inline __u32 fallback_by_header(const struct config *config,
						const struct packet *packet)
{
	if (is_tunnel(config, packet) || is_our_port(packet) || is_in_snat_range(config, packet) ||
	    is_portless_answer(packet))
		return XDP_DROP;
	return is_icmp_answer(packet) ? XDP_PASS : NOT_OURS;
}

/* The same for fragments too: later ones go the way of their first. */
static __always_inline __u32 fallback_at_node(const struct config *config,
					      const struct packet *packet)
{
	struct datagram datagram = datagram_of(packet);
	__u32 fallback;

	if (packet->later_fragment) {
		const __u32 *note = remembered(&datagram);

		return note && *note != SAFE ? *note : NOT_OURS;
	}
	fallback = fallback_by_header(config, packet);
	if (packet->first_fragment && fallback != NOT_OURS)
		remember_datagram(&datagram, fallback);
	else if (packet->first_fragment)
		forget_datagram(&datagram);
	return fallback;
}

/* Whether the packet may ask for a failsafe port: it ends here, or nobody knows yet that it does. */
static __always_inline bool may_end_here(const struct packet *packet, __u32 class,
					 const struct ethhdr *ethernet)
{
	return (class & CLASS_NODE) || (ethernet->h_dest[0] & 1) ||
	       (packet->protocol == IPPROTO_UDP &&
		packet->destination_port == bpf_htons(DHCP_CLIENT));
}

/* Whether a guarded uplink lets the packet in by itself. */
static __always_inline bool is_safe(const struct packet *packet, __u32 class,
				    const struct ethhdr *ethernet)
{
	struct datagram datagram = datagram_of(packet);

	if (packet->later_fragment) {
		const __u32 *note = remembered(&datagram);

		return note && *note == SAFE;
	}
	if (is_upkeep(packet) || is_icmp_error(packet))
		return true;
	if (!may_end_here(packet, class, ethernet) || !is_failsafe(packet, false))
		return false;
	if (packet->first_fragment)
		remember_datagram(&datagram, SAFE);
	return true;
}

/* Whether the frame has been through the dataplane. */
static __always_inline bool was_let_in(const struct config *config, const struct ethhdr *ethernet)
{
	__u8 difference = 0;

	for (int i = 0; i < ETH_ALEN; i++)
		difference |= config->arrival[i] ^ ethernet->h_source[i];
	return !difference;
}

SEC("xdp")
int uplink(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 zero = 0;
	const struct config *config = bpf_map_lookup_elem(&configs, &zero);
	struct ethhdr *ethernet = data;
	struct packet packet = {};
	bool is_guarded;
	int admitted;
	__u32 class;

	if (!config || (void *)(ethernet + 1) > end)
		return XDP_PASS;
	is_guarded = config->enabled & ENABLE_GUARD;
	if (is_guarded && was_let_in(config, ethernet))
		return XDP_PASS;
	if (!parse(&packet, data, end)) {
		/* What is odd is the pods' or nobody's where its addresses are. */
		if (!is_ip(data, end) || !(is_guarded || is_of_pods(&packet)))
			return XDP_PASS;
		return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP);
	}
	if (is_neighbour_discovery(&packet))
		return XDP_PASS;
	admitted = enter_shortcut(ctx, &packet, is_tunnel(config, &packet));
	if (admitted != NOT_ADMITTED)
		return admitted;

	class = class_of(&packet, &packet.destination);
	if (class & (CLASS_POOL | CLASS_SERVICE))
		return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP);
	if (class & CLASS_NODE) {
		__u32 fallback = fallback_at_node(config, &packet);

		if (is_guarded && fallback == XDP_PASS && !is_icmp_error(&packet))
			fallback = XDP_DROP;
		if (fallback != NOT_OURS)
			return bpf_redirect_map(&sockets, ctx->rx_queue_index, fallback);
	}
	if (class_of(&packet, &packet.source) & CLASS_POOL)
		return bpf_redirect_map(&sockets, ctx->rx_queue_index,
					is_guarded ? XDP_DROP : XDP_PASS);
	if (is_guarded && !is_safe(&packet, class, ethernet))
		return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
