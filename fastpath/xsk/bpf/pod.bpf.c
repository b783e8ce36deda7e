/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * From a pod into the trunk: a tc program at the ingress of the pod's host end. The Ethernet
 * destination becomes the host end's interface index, by which the dataplane knows the port, and
 * the frame leaves through the trunk's kernel end. On that way the kernel cuts super-frames into
 * segments and completes checksums, as the trunk's kernel end has no offloads. What the dataplane
 * has approved goes straight into another pod instead.
 */
#include "margay.h"
#include "shortcut.h"

/* The trunk's kernel end; set at load, and so in a section of its own. */
const volatile __u32 trunk_ifindex SEC(".rodata.trunk") = 0;

SEC("tc")
int pod(struct __sk_buff *skb)
{
	__u32 index = bpf_htonl(skb->ifindex);
	__u8 destination[ETH_ALEN] = { PORT_MAC_0, PORT_MAC_1 };
	int taken = take_shortcut(skb);

	if (taken >= 0)
		return taken;
	__builtin_memcpy(destination + 2, &index, sizeof(index));
	if (bpf_skb_store_bytes(skb, 0, destination, sizeof(destination), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(trunk_ifindex, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
