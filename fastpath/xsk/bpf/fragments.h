/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Later fragments carry no ports: they follow the first fragment of their datagram, whose
 * identification is remembered here. Those that overtake their first fragment do not.
 */
#ifndef MARGAY_FRAGMENTS_H
#define MARGAY_FRAGMENTS_H

#include "margay.h"

/* One datagram (RFC 791, RFC 8200 4.5). IPv4 addresses as ::ffff:a.b.c.d. */
struct datagram {
	struct in6_addr source;
	struct in6_addr destination;
	__u32 identification;
	__u32 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct datagram);
	__type(value, __u8);
} datagrams SEC(".maps");

static __always_inline void remember_datagram(const struct datagram *datagram)
{
	__u8 yes = 1;

	bpf_map_update_elem(&datagrams, datagram, &yes, BPF_ANY);
}

static __always_inline bool is_remembered(const struct datagram *datagram)
{
	return bpf_map_lookup_elem(&datagrams, datagram) != NULL;
}

#endif
