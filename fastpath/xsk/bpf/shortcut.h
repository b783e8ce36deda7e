/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The shortcut: TCP between two pods of this node, pod to pod with its super-frames whole. User space
 * approves each direction of a connection for one generation of what is in force; whatever is not
 * exactly what it approved goes to it, packet by packet, as if there were no shortcut.
 */
#ifndef MARGAY_SHORTCUT_H
#define MARGAY_SHORTCUT_H

#include "margay.h"
#include "parse.h"

/* Directions that are approved at one time, at most. */
#define MAX_PASSAGES 4096
/* Ports that are counted; those with higher numbers share the last counters. */
#define MAX_PORTS 4096

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define IP_VERSION_4 0x45 /* and a header without options */
#define IP_FRAGMENT 0x3fff

/* One direction of a connection, as its packets come out of the pod. */
struct passage_key {
	struct in6_addr source;
	struct in6_addr destination;
	__be16 source_port;
	__be16 destination_port;
	/* The host end of the pod's veth. */
	__u32 ifindex;
	/* 4 or 6: the addresses do not tell, an IPv6 packet may carry mapped ones. */
	__u32 family;
};

struct passage {
	/* What it has moved: segments, and bytes of their IP packets. */
	__u64 packets;
	__u64 bytes;
	/* Good while this is the generation in force; 0 when the connection has begun to end. */
	__u32 generation;
	/* The host end of the other pod's veth. */
	__u32 ifindex;
	/* Numbers of both ports. */
	__u16 from;
	__u16 to;
	/* The largest IP packet that the other pod takes. */
	__u16 mtu;
	/* The other pod's Ethernet address. */
	__u8 mac[ETH_ALEN];
	/* What its packets leave with, where a service stands between. */
	__be16 new_ports[2];
	__u32 translated;
	struct in6_addr new_addresses[2];
};

/* What the shortcut has moved in and out of a port: segments, bytes of their Ethernet frames. */
struct port_count {
	__u64 received;
	__u64 received_bytes;
	__u64 sent;
	__u64 sent_bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PASSAGES);
	__type(key, struct passage_key);
	__type(value, struct passage);
} passages SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, struct port_count);
} port_counts SEC(".maps");

/* The generation in force; 0 where there is no shortcut. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} generation SEC(".maps");

/* What a frame is, if the shortcut could take it. */
struct segment {
	struct passage_key key;
	/* Where the transport header begins. */
	__u32 transport;
	/* Length of all headers, Ethernet's too. */
	__u32 headers;
	__u16 ip_checksum;
	__u8 ttl;
	__u8 flags;
};

/* RFC 1071. The kernel leaves this checksum to no device. */
static __always_inline bool checksum_is_right(const struct iphdr *ip)
{
	const __u16 *words = (const void *)ip;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/* An IPv4 header without options, of a whole TCP packet of `length` bytes that may be forwarded. */
static __always_inline bool read_ipv4(struct segment *segment, struct iphdr *ip, void *end,
				      __u32 length)
{
	if ((void *)(ip + 1) > end || *(__u8 *)ip != IP_VERSION_4 ||
	    ip->protocol != IPPROTO_TCP || (ip->frag_off & bpf_htons(IP_FRAGMENT)) ||
	    bpf_ntohs(ip->tot_len) != length || ip->ttl <= 1 || !checksum_is_right(ip))
		return false;
	segment->key.source = mapped(ip->saddr);
	segment->key.destination = mapped(ip->daddr);
	segment->key.family = 4;
	segment->ip_checksum = ip->check;
	segment->ttl = ip->ttl;
	return true;
}

static __always_inline bool read_ipv6(struct segment *segment, struct ipv6hdr *ip, void *end,
				      __u32 length)
{
	if ((void *)(ip + 1) > end || ip->version != 6 || ip->nexthdr != IPPROTO_TCP ||
	    bpf_ntohs(ip->payload_len) + sizeof(*ip) != length || ip->hop_limit <= 1)
		return false;
	segment->key.source = ip->saddr;
	segment->key.destination = ip->daddr;
	segment->key.family = 6;
	segment->ttl = ip->hop_limit;
	return true;
}

/* Headers beyond the linear part, tags, options: the dataplane's business. */
static __always_inline bool read_segment(struct segment *segment, struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *ethernet = data;
	__u32 length = skb->len - sizeof(*ethernet);
	struct tcphdr *tcp;
	__u32 transport;

	if (skb->vlan_present || (void *)(ethernet + 1) > end)
		return false;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		if (!read_ipv4(segment, data + sizeof(*ethernet), end, length))
			return false;
		transport = sizeof(*ethernet) + sizeof(struct iphdr);
	} else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6)) {
		if (!read_ipv6(segment, data + sizeof(*ethernet), end, length))
			return false;
		transport = sizeof(*ethernet) + sizeof(struct ipv6hdr);
	} else {
		return false;
	}
	tcp = data + transport;
	if ((void *)(tcp + 1) > end || tcp->doff < 5)
		return false;
	segment->key.source_port = tcp->source;
	segment->key.destination_port = tcp->dest;
	segment->key.ifindex = skb->ifindex;
	segment->flags = ((__u8 *)tcp)[13];
	segment->transport = transport;
	segment->headers = transport + tcp->doff * 4;
	return segment->headers <= skb->len;
}

/* Rewrites the headers as the dataplane would; 0 on success. */
static __always_inline long finish(struct __sk_buff *skb, const struct segment *segment,
				   const struct passage *passage)
{
	/* What a pod sees as its gateway's address. */
	__u8 addresses[2 * ETH_ALEN] = { [6 ... 11] = 0xee };
	__u8 hops = segment->ttl - 1;

	__builtin_memcpy(addresses, passage->mac, ETH_ALEN);
	if (bpf_skb_store_bytes(skb, 0, addresses, sizeof(addresses), 0))
		return -1;
	if (segment->key.family == 6)
		return bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, hop_limit),
					   &hops, sizeof(hops), 0);
	/* RFC 1624: one less in the header is one more in its complement. */
	__u32 sum = segment->ip_checksum + bpf_htons(0x0100);
	struct {
		__u8 ttl;
		__u8 protocol;
		__u16 checksum;
	} changed = { hops, IPPROTO_TCP, sum + (sum >= 0xffff) };

	return bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, ttl), &changed,
				   sizeof(changed), 0);
}

/*
 * Puts the addresses and ports in that the passage's packets leave with, and mends what is summed over
 * them; a checksum that was left to a device is mended as far as it is there. 0 on success.
 */
static __always_inline long translate(struct __sk_buff *skb, const struct segment *segment,
				      struct passage *passage)
{
	__u32 check = segment->transport + offsetof(struct tcphdr, check);
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
	return failed || bpf_l4_csum_replace(skb, check, 0, change, BPF_F_PSEUDO_HDR) ||
	       bpf_l4_csum_replace(skb, check, old_ports, new_ports, sizeof(new_ports)) ||
	       bpf_skb_store_bytes(skb, segment->transport, passage->new_ports,
				   sizeof(passage->new_ports), 0);
}

static __always_inline struct port_count *count_of(__u16 port)
{
	__u32 slot = port < MAX_PORTS ? port : MAX_PORTS - 1;

	return bpf_map_lookup_elem(&port_counts, &slot);
}

/* Counts the frame as the segments that the dataplane would have seen. */
static __always_inline void count(struct passage *passage, const struct segment *segment,
				  __u32 segments, __u32 length)
{
	__u64 all = length + (__u64)(segments - 1) * segment->headers;
	struct port_count *from = count_of(passage->from), *to = count_of(passage->to);

	__sync_fetch_and_add(&passage->packets, segments);
	__sync_fetch_and_add(&passage->bytes, all - (__u64)segments * ETH_HLEN);
	if (from) {
		from->received += segments;
		from->received_bytes += all;
	}
	if (to) {
		to->sent += segments;
		to->sent_bytes += all;
	}
}

/*
 * Moves an approved frame into the other pod. A negative answer: it is none, and has to take the
 * long way.
 */
static __always_inline int take_shortcut(struct __sk_buff *skb)
{
	__u32 zero = 0, segments = 1, largest = skb->len - ETH_HLEN, length = skb->len;
	__u32 *in_force = bpf_map_lookup_elem(&generation, &zero);
	struct segment segment = {};
	struct passage *passage;

	if (!in_force || !*in_force || !read_segment(&segment, skb))
		return -1;
	passage = bpf_map_lookup_elem(&passages, &segment.key);
	if (!passage)
		return -1;
	/* The dataplane is to see how connections begin and end. */
	if (segment.flags & (TCP_FIN | TCP_SYN | TCP_RST)) {
		passage->generation = 0;
		return -1;
	}
	if (passage->generation != *in_force)
		return -1;
	if (skb->gso_size && length - segment.headers > skb->gso_size) {
		segments = (length - segment.headers + skb->gso_size - 1) / skb->gso_size;
		largest = segment.headers - ETH_HLEN + skb->gso_size;
	}
	if (largest > passage->mtu)
		return -1;
	if (finish(skb, &segment, passage) ||
	    (passage->translated && translate(skb, &segment, passage)))
		return TC_ACT_SHOT;
	count(passage, &segment, segments, length);
	/* Dropped by the kernel if there is no such veth, or its peer is down. */
	return bpf_redirect_peer(passage->ifindex, 0);
}

#endif
