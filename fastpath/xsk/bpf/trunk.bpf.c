/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Out of the trunk: a tc program at the ingress of the trunk's kernel end. The Ethernet source that
 * the dataplane wrote says where the frame goes: index 0 is the host itself, any other is the host
 * end of a pod's veth, through which the frame goes into the pod.
 */
#include "margay.h"

SEC("tc")
int trunk(struct __sk_buff *skb)
{
	/* What a pod sees as its gateway's address. */
	const __u8 gateway[ETH_ALEN] = { 0xee, 0xee, 0xee, 0xee, 0xee, 0xee };
	__u8 source[ETH_ALEN];
	__u32 index;

	if (bpf_skb_load_bytes(skb, ETH_ALEN, source, sizeof(source)))
		return TC_ACT_SHOT;
	if (source[0] != PORT_MAC_0 || source[1] != PORT_MAC_1)
		return TC_ACT_SHOT;
	__builtin_memcpy(&index, source + 2, sizeof(index));
	if (!index)
		return TC_ACT_OK;
	if (bpf_skb_store_bytes(skb, ETH_ALEN, gateway, sizeof(gateway), 0))
		return TC_ACT_SHOT;
	/* Dropped by the kernel if there is no such veth, or its peer is down. */
	return bpf_redirect_peer(bpf_ntohl(index), 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
