/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What Margay's BPF programs share: types, the socket map, Ethernet addresses that carry a port. */
#ifndef MARGAY_H
#define MARGAY_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Receive queues that an interface may have: slots of each socket map. */
#define MAX_QUEUES 256

/* AF_XDP sockets by receive queue. The kernel empties a slot when its socket is closed. */
#define SOCKETS(name)                            \
	struct {                                 \
		__uint(type, BPF_MAP_TYPE_XSKMAP); \
		__uint(max_entries, MAX_QUEUES);   \
		__type(key, __u32);                \
		__type(value, __u32);              \
	} name SEC(".maps")

/* First two bytes of an Ethernet address whose other four are an interface index, big endian. */
#define PORT_MAC_0 0x02
#define PORT_MAC_1 0x4d

/*
 * The second byte of one that hands a frame to the host as though it had come in by the uplink whose
 * index the rest is.
 */
#define ARRIVAL_MAC_1 0x4e

#endif
