/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * From an uplink to where a passage of the shortcut leads: a tc program at the uplink's ingress. What
 * its XDP program has admitted (see admit.h) comes here joined to super-frames. It was approved when it
 * was admitted; that its passage is gone since happens when the connection is just leaving the
 * shortcut: TCP sends again what is dropped then, a datagram is lost.
 */
#include "margay.h"
#include "shortcut.h"

/* The Ethernet destination of admitted frames; set at load, and so in a section of its own. */
const volatile __u8 inward_mac[8] SEC(".rodata.inward") = {};

/* The longest headers that are looked at. */
#define HEADERS (ETH_HLEN + sizeof(struct ipv6hdr) + JUMBO_OPTION + sizeof(struct tcphdr))

/* Segments that were dropped here. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

static __always_inline bool is_admitted(const struct ethhdr *ethernet)
{
	__u8 difference = 0;

	for (int i = 0; i < ETH_ALEN; i++)
		difference |= inward_mac[i] ^ ethernet->h_dest[i];
	return !difference;
}

/* Counted as received by the port and dropped. */
static __always_inline int lose(struct __sk_buff *skb, __u16 port, const struct segment *segment)
{
	__u32 zero = 0, segments = segment->headers ? segments_of(skb, segment) : 1;
	__u64 *counter = bpf_map_lookup_elem(&lost, &zero);
	struct port_count *from = count_of(port);

	if (counter && from) {
		*counter += segments;
		from->received += segments;
		from->received_bytes += skb->len + (segments - 1) * segment->headers;
	}
	return TC_ACT_SHOT;
}

SEC("tc")
int inward(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct segment segment = {};
	struct ethhdr *ethernet = data;
	struct passage *passage;
	__u16 from;

	if ((void *)(ethernet + 1) > end || !is_admitted(ethernet))
		return TC_ACT_UNSPEC;
	__builtin_memcpy(&from, ethernet->h_source + 4, sizeof(from));
	/* Some drivers leave more than the first header in fragments. */
	if (data + HEADERS > end && skb->len > end - data) {
		bpf_skb_pull_data(skb, skb->len < HEADERS ? skb->len : HEADERS);
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		ethernet = data;
		if ((void *)(ethernet + 1) > end)
			return lose(skb, from, &segment);
	}
	if (!read_segment(&segment, data + ETH_HLEN, end, ethernet->h_proto, true))
		return lose(skb, from, &segment);
	segment.key.ifindex = skb->ifindex;
	passage = bpf_map_lookup_elem(&passages, &segment.key);
	if (!passage)
		return lose(skb, from, &segment);
	return carry(skb, &segment, passage);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
