/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * From an uplink into the shortcut, at XDP: what was approved is taken out of its tunnel and handed to
 * the kernel under an Ethernet destination that nobody outside knows. The kernel joins the segments to
 * super-frames, and inward.bpf.c takes them where they go.
 */
#ifndef MARGAY_ADMIT_H
#define MARGAY_ADMIT_H

#include "margay.h"
#include "passage.h"

/* Set at load, and so in sections of their own. */
const volatile __u8 inward_mac[8] SEC(".rodata.inward") = {};
/* Whether a packet may go on in further buffers: only kernels that have those are asked how long it is. */
const volatile __u8 multi_buffer SEC(".rodata.buffers") = 0;

static __always_inline bool is_same(const __u8 *a, const __u8 *b, int length)
{
	__u8 difference = 0;

	for (int i = 0; i < length; i++)
		difference |= a[i] ^ b[i];
	return !difference;
}

/*
 * Whether the headers of a tunnel are whole and name whom the passage expects. A congestion mark that
 * the packet within does not have (RFC 6040 4.2) and a UDP checksum are the dataplane's business.
 */
static __always_inline bool is_expected_tunnel(const struct vxlan_cover *cover,
					       const struct vxlan_cover *expected, __u32 length,
					       const struct segment *segment, bool vxlan)
{
	__u8 mark = cover->ip.tos & 3;

	if (*((__u8 *)cover + ETH_HLEN) != IP_VERSION_4 ||
	    cover->ip.protocol != expected->ip.protocol ||
	    cover->ip.saddr != expected->ip.saddr || cover->ip.daddr != expected->ip.daddr ||
	    (cover->ip.frag_off & bpf_htons(IP_FRAGMENT)) ||
	    bpf_ntohs(cover->ip.tot_len) != length - ETH_HLEN ||
	    (mark && mark != (segment->class & 3)) ||
	    header_sum((void *)cover + ETH_HLEN) != 0xffff)
		return false;
	return !vxlan || (cover->udp.dest == expected->udp.dest && !cover->udp.check &&
			  bpf_ntohs(cover->udp.len) == length - COVER_IPIP &&
			  is_same(cover->vxlan, expected->vxlan, sizeof(cover->vxlan)));
}

/* The frame was not approved: it is as it was. */
#define NOT_ADMITTED -1

/*
 * Admits a frame in which so many bytes stand before an IP packet of that kind: it is the kernel's
 * then. The lengths that the program calls it with are constants.
 */
static __always_inline int admit(struct xdp_md *ctx, __u32 cover, __be16 kind)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 length = multi_buffer ? bpf_xdp_get_buff_len(ctx) : end - data;
	struct ethhdr *ethernet = data;
	struct segment segment = { .key.ifindex = ctx->ingress_ifindex };
	struct passage *passage;
	__u16 from;

	if (data + cover > end || !read_segment(&segment, data + cover, end, kind, false) ||
	    !is_whole(&segment, data + cover, end, length - cover))
		return NOT_ADMITTED;
	passage = passage_of(&segment);
	if (!passage || passage->expected_len != cover || length - cover > passage->mtu ||
	    !is_same(ethernet->h_dest, passage->expected, ETH_ALEN))
		return NOT_ADMITTED;
	if (cover != COVER_NONE &&
	    !is_expected_tunnel(data, (void *)passage->expected, length, &segment,
				cover == COVER_VXLAN))
		return NOT_ADMITTED;
	from = passage->from;
	/* Neither can be: the frame is longer than that. */
	if (cover != COVER_NONE && bpf_xdp_adjust_head(ctx, cover - ETH_HLEN))
		return XDP_ABORTED;
	ethernet = (void *)(long)ctx->data;
	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	for (int i = 0; i < ETH_ALEN; i++)
		ethernet->h_dest[i] = inward_mac[i];
	/* By which port it came, for whoever counts it. */
	__builtin_memset(ethernet->h_source, 0, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source + 4, &from, sizeof(from));
	ethernet->h_proto = kind;
	return XDP_PASS;
}

/* Admits a frame of an uplink, if it was approved. */
static __always_inline int enter_shortcut(struct xdp_md *ctx, const struct packet *packet,
					   bool is_vxlan)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct vxlan_cover *cover = data;
	struct ethhdr *ethernet = data;

	if (!is_in_force() || (void *)(ethernet + 1) > end)
		return NOT_ADMITTED;
	if (packet->protocol == IPPROTO_TCP || (packet->protocol == IPPROTO_UDP && !is_vxlan))
		return admit(ctx, COVER_NONE, ethernet->h_proto);
	if (packet->is_v6)
		return NOT_ADMITTED;
	if (packet->protocol == IPPROTO_IPIP)
		return admit(ctx, COVER_IPIP, bpf_htons(ETH_P_IP));
	if (!is_vxlan || (void *)(cover + 1) > end)
		return NOT_ADMITTED;
	return admit(ctx, COVER_VXLAN, cover->inner.h_proto);
}

#endif
