/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * XDP does not see what the kernel sends. Of that, packets of flows that the dataplane translates
 * (the answers of a host process behind a node port) must go back to it: a tc program at the
 * uplink's egress sends them into the trunk, as if the host had routed them there. What the
 * dataplane itself sends does not pass here.
 *
 * It also notes with whom the kernel speaks by protocols without ports.
 *
 * Of an uplink with a host endpoint everything goes to it but what must not depend on it. Such a
 * frame says which uplink it was to leave by, and keeps the neighbour that the kernel had chosen.
 */
#include "margay.h"
#include "fragments.h"
#include "guard.h"
#include "parse.h"
#include "portless.h"

/* What is known of a datagram by its first fragment. */
#define TRANSLATED 0
#define SAFE 1

/* The trunk's kernel end; set at load, and so in a section of its own. */
const volatile __u32 trunk_ifindex SEC(".rodata.trunk") = 0;

/* A packet of the flow as the kernel sends it. */
struct flow {
	struct in6_addr source;
	struct in6_addr destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 reserved[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct flow);
	__type(value, __u8);
} flows SEC(".maps");

/* Uplinks with a host endpoint, by interface index. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u8);
} guarded SEC(".maps");

/* When the kernel itself last spoke in an exchange without ports, in nanoseconds since boot. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct exchange);
	__type(value, __u64);
} kernels SEC(".maps");

/* No pod is to have an exchange that the kernel has. */
static __always_inline void note_exchange(const struct packet *packet)
{
	struct exchange key = exchange_of(packet, true);
	__u64 now;

	if (!is_portless(packet))
		return;
	now = bpf_ktime_get_boot_ns();
	bpf_map_update_elem(&kernels, &key, &now, BPF_ANY);
}

static __always_inline bool is_translated(const struct packet *packet)
{
	struct flow flow = {
		.source = packet->source,
		.destination = packet->destination,
		.source_port = packet->source_port,
		.destination_port = packet->destination_port,
		.protocol = packet->protocol,
	};
	struct datagram datagram = datagram_of(packet);

	if (packet->later_fragment) {
		const __u32 *note = remembered(&datagram);

		return note && *note == TRANSLATED;
	}
	if (!bpf_map_lookup_elem(&flows, &flow)) {
		if (packet->first_fragment)
			forget_datagram(&datagram);
		return false;
	}
	if (packet->first_fragment)
		remember_datagram(&datagram, TRANSLATED);
	return true;
}

/* Whether a guarded uplink lets the packet out by itself. */
static __always_inline bool is_safe(const struct packet *packet)
{
	struct datagram datagram = datagram_of(packet);

	if (packet->later_fragment) {
		const __u32 *note = remembered(&datagram);

		return note && *note == SAFE;
	}
	if (is_upkeep(packet) || is_icmp_error(packet))
		return true;
	if (!is_failsafe(packet, true))
		return false;
	if (packet->first_fragment)
		remember_datagram(&datagram, SAFE);
	return true;
}

/* Into the trunk, as if the host had routed it there. */
static __always_inline int to_trunk(struct __sk_buff *skb)
{
	/* Index 0: from the host. */
	const __u8 destination[ETH_ALEN] = { PORT_MAC_0, PORT_MAC_1 };

	if (bpf_skb_store_bytes(skb, 0, destination, sizeof(destination), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(trunk_ifindex, 0);
}

/* The same with the uplink's index, and the neighbour's address in the place of the uplink's. */
static __always_inline int to_guard(struct __sk_buff *skb)
{
	__u8 header[2 * ETH_ALEN] = { PORT_MAC_0, PORT_MAC_1 };
	__u32 index = bpf_htonl(skb->ifindex);

	__builtin_memcpy(header + 2, &index, sizeof(index));
	if (bpf_skb_load_bytes(skb, 0, header + ETH_ALEN, ETH_ALEN) ||
	    bpf_skb_store_bytes(skb, 0, header, sizeof(header), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(trunk_ifindex, 0);
}

SEC("tc")
int hostflow(struct __sk_buff *skb)
{
	/*
	 * The kernel builds headers in the linear part; pulling would copy the head of every TCP
	 * segment, which is a clone.
	 */
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 ifindex = skb->ifindex;
	bool is_guarded = bpf_map_lookup_elem(&guarded, &ifindex) && !skb->vlan_present;
	struct packet packet = {};

	if (!parse(&packet, data, end))
		return is_guarded && is_ip(data, end) ? to_guard(skb) : TC_ACT_OK;
	note_exchange(&packet);
	if (is_translated(&packet))
		return is_guarded ? to_guard(skb) : to_trunk(skb);
	if (!is_guarded || is_safe(&packet))
		return TC_ACT_OK;
	return to_guard(skb);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
