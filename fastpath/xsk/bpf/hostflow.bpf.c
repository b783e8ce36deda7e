/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * XDP does not see what the kernel sends. Of that, packets of flows that the dataplane translates
 * (the answers of a host process behind a node port) must go back to it: a tc program at the
 * uplink's egress sends them into the trunk, as if the host had routed them there. What the
 * dataplane itself sends does not pass here.
 */
#include "margay.h"
#include "fragments.h"
#include "parse.h"

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

static __always_inline bool is_ours(const struct packet *packet)
{
	struct flow flow = {
		.source = packet->source,
		.destination = packet->destination,
		.source_port = packet->source_port,
		.destination_port = packet->destination_port,
		.protocol = packet->protocol,
	};
	struct datagram datagram = {
		.source = packet->source,
		.destination = packet->destination,
		.identification = packet->identification,
		.protocol = packet->protocol,
	};

	if (packet->later_fragment)
		return remembered(&datagram) != NULL;
	if (!bpf_map_lookup_elem(&flows, &flow))
		return false;
	if (packet->first_fragment)
		remember_datagram(&datagram, 0);
	return true;
}

SEC("tc")
int hostflow(struct __sk_buff *skb)
{
	/* Index 0: from the host. */
	const __u8 destination[ETH_ALEN] = { PORT_MAC_0, PORT_MAC_1 };
	struct packet packet = {};

	/*
	 * The kernel builds headers in the linear part; pulling would copy the head of every TCP
	 * segment, which is a clone.
	 */
	if (!parse(&packet, (void *)(long)skb->data, (void *)(long)skb->data_end) ||
	    !is_ours(&packet))
		return TC_ACT_OK;
	if (bpf_skb_store_bytes(skb, 0, destination, sizeof(destination), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(trunk_ifindex, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
