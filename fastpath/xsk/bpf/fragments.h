/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Later fragments carry no ports: they follow the first fragment of their datagram, whose
 * identification is remembered here. Those that overtake their first fragment do not.
 */
#ifndef MARGAY_FRAGMENTS_H
#define MARGAY_FRAGMENTS_H

#include "margay.h"
#include "parse.h"

/* One datagram (RFC 791, RFC 8200 4.5). IPv4 addresses as ::ffff:a.b.c.d. */
struct datagram {
	struct in6_addr source;
	struct in6_addr destination;
	__u32 identification;
	__u32 protocol;
};

/* The value is the program's own note about the datagram. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct datagram);
	__type(value, __u32);
} datagrams SEC(".maps");

static __always_inline struct datagram datagram_of(const struct packet *packet)
{
	struct datagram datagram = {
		.source = packet->source,
		.destination = packet->destination,
		.identification = packet->identification,
		.protocol = packet->protocol,
	};

	return datagram;
}

static __always_inline void remember_datagram(const struct datagram *datagram, __u32 note)
{
	bpf_map_update_elem(&datagrams, datagram, &note, BPF_ANY);
}

/* Another datagram may have had the identification before. */
static __always_inline void forget_datagram(const struct datagram *datagram)
{
	bpf_map_delete_elem(&datagrams, datagram);
}

/* NULL where the first fragment has not been seen. */
static __always_inline const __u32 *remembered(const struct datagram *datagram)
{
	return bpf_map_lookup_elem(&datagrams, datagram);
}

#endif
