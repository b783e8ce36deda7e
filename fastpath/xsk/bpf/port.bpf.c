/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Every frame of the interface goes to the AF_XDP socket of its receive queue: the trunk's far end
 * and the host end of a pod of the native kind. Without a socket the frame is dropped: nobody but
 * the dataplane may answer here.
 */
#include "margay.h"

SOCKETS(sockets);

SEC("xdp")
int port(struct xdp_md *ctx)
{
	return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
