/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Out of the trunk: a tc program at the ingress of the trunk's kernel end. The Ethernet source that
 * the dataplane wrote says where the frame goes: index 0 is the host itself, any other is the host
 * end of a pod's veth, through which the frame goes into the pod. What an uplink's host endpoint has
 * let in is handed to the host as though it came from the uplink, under an Ethernet source by which
 * the uplink's XDP program knows it if it sees it again, as a generic one does.
 */
#include "margay.h"

/* Known to nobody outside; set at load, and so in a section of its own. */
const volatile __u8 arrival_mac[8] SEC(".rodata.arrival") = {};

static __always_inline int arrive(struct __sk_buff *skb, __u32 uplink)
{
	__u8 source[ETH_ALEN];

	for (int i = 0; i < ETH_ALEN; i++)
		source[i] = arrival_mac[i];
	if (bpf_skb_store_bytes(skb, ETH_ALEN, source, sizeof(source), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(uplink, BPF_F_INGRESS);
}

SEC("tc")
int trunk(struct __sk_buff *skb)
{
	/* What a pod sees as its gateway's address. */
	const __u8 gateway[ETH_ALEN] = { 0xee, 0xee, 0xee, 0xee, 0xee, 0xee };
	__u8 source[ETH_ALEN];
	__u32 index;

	if (bpf_skb_load_bytes(skb, ETH_ALEN, source, sizeof(source)))
		return TC_ACT_SHOT;
	__builtin_memcpy(&index, source + 2, sizeof(index));
	if (source[0] == PORT_MAC_0 && source[1] == ARRIVAL_MAC_1)
		return arrive(skb, bpf_ntohl(index));
	if (source[0] != PORT_MAC_0 || source[1] != PORT_MAC_1)
		return TC_ACT_SHOT;
	if (!index)
		return TC_ACT_OK;
	if (bpf_skb_store_bytes(skb, ETH_ALEN, gateway, sizeof(gateway), 0))
		return TC_ACT_SHOT;
	/* Dropped by the kernel if there is no such veth, or its peer is down. */
	return bpf_redirect_peer(bpf_ntohl(index), 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
