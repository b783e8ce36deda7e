/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The shortcut: TCP and UDP past the workers, super-frames whole, from a pod into another or out of an
 * uplink, and from an uplink into a pod. User space approves each direction of a connection for one
 * generation of what is in force; whatever is not exactly what it approved goes to it, packet by
 * packet, as if there were no shortcut.
 */
#ifndef MARGAY_SHORTCUT_H
#define MARGAY_SHORTCUT_H

#include "margay.h"
#include "passage.h"

/* Lowers the hop limit as the dataplane would; 0 on success. */
static __always_inline long lower_hops(struct __sk_buff *skb, const struct segment *segment)
{
	__u8 hops = segment->ttl - 1;

	if (segment->key.family == 6)
		return bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, hop_limit),
					   &hops, sizeof(hops), 0);
	/* RFC 1624: one less in the header is one more in its complement. */
	__u32 sum = segment->ip_checksum + bpf_htons(0x0100);
	struct {
		__u8 ttl;
		__u8 protocol;
		__u16 checksum;
	} changed = { hops, segment->key.protocol, sum + (sum >= 0xffff) };

	return bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, ttl), &changed,
				   sizeof(changed), 0);
}

/*
 * Puts the addresses and ports in that the passage's packets leave with, and mends what is summed over
 * them; a checksum that was left to a device is mended as far as it is there. UDP's of 0 says that there
 * is none, and stays (RFC 768). 0 on success.
 */
static __always_inline long translate(struct __sk_buff *skb, const struct segment *segment,
				      const struct passage *passage)
{
	bool is_udp = segment->key.protocol == IPPROTO_UDP;
	__u32 check = segment->transport + (is_udp ? offsetof(struct udphdr, check) :
						     offsetof(struct tcphdr, check));
	__u64 mark = is_udp ? BPF_F_MARK_MANGLED_0 : 0;
	__be16 ports[2] = { segment->key.source_port, segment->key.destination_port };
	__u32 old_ports, new_ports;
	__be32 *from = (void *)&segment->key.source, *to = (void *)passage->new_addresses;
	__be32 old[2] = { from[3], from[7] }, new[2] = { to[3], to[7] };
	__s64 change;
	long failed;

	__builtin_memcpy(&old_ports, ports, sizeof(old_ports));
	__builtin_memcpy(&new_ports, passage->new_ports, sizeof(new_ports));
	if (segment->key.family == 4) {
		change = bpf_csum_diff(old, sizeof(old), new, sizeof(new), 0);
		failed = bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), new,
					     sizeof(new), 0) ||
			 bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), 0,
					     change, 0);
	} else {
		change = bpf_csum_diff(from, 32, to, 32, 0);
		failed = bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr), to, 32,
					     0);
	}
	return failed || bpf_l4_csum_replace(skb, check, 0, change, BPF_F_PSEUDO_HDR | mark) ||
	       bpf_l4_csum_replace(skb, check, old_ports, new_ports,
				   sizeof(new_ports) | mark) ||
	       bpf_skb_store_bytes(skb, segment->transport, passage->new_ports,
				   sizeof(passage->new_ports), 0);
}

#define KEEP_SEGMENTS (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET)
#define AROUND_IPIP (KEEP_SEGMENTS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4)
#define AROUND_VXLAN                                                   \
	(AROUND_IPIP | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |                   \
	 BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH)

/* What a tunnel's headers say of the packet within, as the dataplane writes them. */
static __always_inline void fill_in(struct vxlan_cover *cover, const struct segment *segment,
				    const struct passage *passage, __u32 length)
{
	bool whole = segment->fragment & bpf_htons(0x4000);

	cover->ip.tos = segment->class;
	/* What does not fit is a super-frame's: the kernel writes those of its segments. */
	cover->ip.tot_len = length > 0xffff ? 0 : bpf_htons(length);
	cover->ip.id = whole ? 0 : segment->identification ^ passage->identification;
	cover->ip.frag_off = segment->fragment & bpf_htons(0x4000);
	cover->ip.check = 0;
	cover->ip.check = ~header_sum((void *)cover + ETH_HLEN);
	cover->udp.len = bpf_htons(length - sizeof(struct iphdr));
}

/*
 * Puts around the packet what it leaves with. The kernel repeats it for each segment of a super-frame,
 * with lengths, identifications and checksums that fit. 0 on success.
 */
static __always_inline long wrap(struct __sk_buff *skb, const struct segment *segment,
				 const struct passage *passage)
{
	struct vxlan_cover cover;
	__u32 length = skb->len;

	__builtin_memcpy(&cover, passage->cover, sizeof(cover));
	switch (passage->cover_len) {
	case COVER_NONE:
		return bpf_skb_store_bytes(skb, 0, &cover, COVER_NONE, 0);
	case COVER_IPIP:
		fill_in(&cover, segment, passage, length + COVER_IPIP - 2 * ETH_HLEN);
		return bpf_skb_adjust_room(skb, COVER_IPIP - ETH_HLEN, BPF_ADJ_ROOM_MAC,
					   AROUND_IPIP) ||
		       bpf_skb_store_bytes(skb, 0, &cover, COVER_IPIP, 0);
	case COVER_VXLAN:
		fill_in(&cover, segment, passage, length + COVER_VXLAN - 2 * ETH_HLEN);
		return bpf_skb_adjust_room(skb, COVER_VXLAN - ETH_HLEN, BPF_ADJ_ROOM_MAC,
					   AROUND_VXLAN) ||
		       bpf_skb_store_bytes(skb, 0, &cover, COVER_VXLAN, 0);
	default:
		return -1;
	}
}

static __always_inline struct port_count *count_of(__u16 port)
{
	__u32 slot = port < MAX_PORTS ? port : MAX_PORTS - 1;

	return bpf_map_lookup_elem(&port_counts, &slot);
}

/* How many segments the dataplane would have seen of a frame. */
static __always_inline __u32 segments_of(const struct __sk_buff *skb, const struct segment *segment)
{
	if (!skb->gso_size || skb->len - segment->headers <= skb->gso_size)
		return 1;
	return (skb->len - segment->headers + skb->gso_size - 1) / skb->gso_size;
}

/* Counts the frame as the segments that the dataplane would have seen. */
static __always_inline void count(struct passage *passage, const struct segment *segment,
				  __u32 segments, __u32 length)
{
	__u32 headers = segment->headers - segment->option;
	__u64 all = length - segment->option + (__u64)(segments - 1) * headers -
		    (__u64)segments * ETH_HLEN;
	struct port_count *from = count_of(passage->from), *to = count_of(passage->to);
	__u32 expected = passage->expected_len ? passage->expected_len : ETH_HLEN;

	__sync_fetch_and_add(&passage->packets, segments);
	__sync_fetch_and_add(&passage->bytes, all);
	if (from) {
		from->received += segments;
		from->received_bytes += all + (__u64)segments * expected;
	}
	if (to) {
		to->sent += segments;
		to->sent_bytes += all + (__u64)segments * passage->cover_len;
	}
}

/* Moves an approved frame to where its passage leads. */
static __always_inline int carry(struct __sk_buff *skb, const struct segment *segment,
				 struct passage *passage)
{
	__u32 segments = segments_of(skb, segment), length = skb->len;

	if (lower_hops(skb, segment) ||
	    ((passage->flags & PASSAGE_TRANSLATED) && translate(skb, segment, passage)) ||
	    wrap(skb, segment, passage))
		return TC_ACT_SHOT;
	count(passage, segment, segments, length);
	if (passage->flags & PASSAGE_TO_UPLINK)
		return bpf_redirect(passage->ifindex, 0);
	/* Dropped by the kernel if there is no such veth, or its peer is down. */
	return bpf_redirect_peer(passage->ifindex, 0);
}

/*
 * Moves an approved frame of a pod. A negative answer: it is none, and has to take the long way.
 */
static __always_inline int take_shortcut(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 length = skb->len - ETH_HLEN, largest = length;
	struct ethhdr *ethernet = data;
	struct segment segment = {};
	struct passage *passage;

	if (!is_in_force() || skb->vlan_present || (void *)(ethernet + 1) > end ||
	    !read_segment(&segment, data + ETH_HLEN, end, ethernet->h_proto, false) ||
	    !is_whole(&segment, data + ETH_HLEN, end, length))
		return -1;
	segment.key.ifindex = skb->ifindex;
	passage = passage_of(&segment);
	if (!passage)
		return -1;
	if (segments_of(skb, &segment) > 1)
		largest = segment.headers - ETH_HLEN + skb->gso_size;
	if (largest > passage->mtu)
		return -1;
	return carry(skb, &segment, passage);
}

#endif
