//! Why a packet did not go straight through, and what was found in it: one table gives each reason
//! its name (the label of its counter) and its sentence.

/// Declares an enum of reasons with their names and sentences.
macro_rules! reasons {
    ($(#[$meta:meta])* $Name:ident { $($Variant:ident $name:literal $sentence:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $Name {
            $(#[doc = $sentence] $Variant,)*
        }

        impl $Name {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$Variant,)*];

            /// Number of reasons.
            pub const COUNT: usize = Self::ALL.len();

            /// The label of its counter.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$Variant => $name,)* }
            }

            /// A sentence for people.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$Variant => $sentence,)* }
            }

            /// The reason with this number.
            pub fn from_index(index: u8) -> Option<Self> {
                Self::ALL.get(usize::from(index)).copied()
            }
        }
    };
}

reasons! {
    /// Why a packet was dropped.
    DropReason {
        Malformed "malformed" "A header is cut short, contradicts itself or the frame, or has a forbidden value.",
        Checksum "checksum" "The IPv4 header checksum is wrong.",
        NotIp "not_ip" "The frame carries no IPv4, IPv6 or ARP.",
        NotForUs "not_for_us" "The frame's Ethernet destination is not ours, or nobody here owns the address.",
        Spoof "spoof" "The source address does not belong to the port the packet came from.",
        LinkLocal "link_local" "A pod's word to its own link (multicast listener reports and the like): nobody there listens.",
        Martian "martian" "The address may not be forwarded (loopback, link-local, multicast, reserved, broadcast).",
        UnknownPort "unknown_port" "The frame came from an interface that is no port.",
        UnknownTunnelPeer "unknown_tunnel_peer" "The tunnel packet is not from a node of the cluster.",
        TunnelMalformed "tunnel_malformed" "The tunnel header is cut short, has a wrong flag or identifier, or nests too deep.",
        TunnelEcn "tunnel_ecn" "The outer header is marked congested, the inner one cannot carry it (RFC 6040).",
        TunnelFromWorkload "tunnel_from_workload" "A pod sent a tunnel packet of its own.",
        Policy "policy" "A policy denied the packet.",
        PolicyMissing "policy_missing" "A policy or profile that the endpoint names is not there: fail closed.",
        EndpointToHost "endpoint_to_host" "The default endpoint-to-host action is Drop.",
        NoRoute "no_route" "No route leads to the destination.",
        NoEndpoint "no_endpoint" "The address lies in a local block, but no pod has it.",
        NoService "no_service" "The address lies in a service range, but no service has it.",
        NoLocalBackend "no_local_backend" "The traffic policy is Local and no backend is on this node.",
        SourceRange "source_range" "The client is outside the service's load-balancer source ranges.",
        InvalidState "invalid_state" "The packet fits no state of its connection.",
        FlowTableFull "flow_table_full" "No slot in the flow table, and nothing to evict.",
        SnatExhausted "snat_exhausted" "No free source port for masquerading; of a protocol without ports, somebody else speaks to that end.",
        TtlExpired "ttl_expired" "The TTL or hop limit ran out and no error may be sent.",
        TooBig "too_big" "Larger than the path allows and no error may be sent.",
        Fragment "fragment" "A fragment that cannot belong to a datagram: overlap, tiny, too many, timed out.",
        NeighbourUnresolved "neighbour_unresolved" "The next hop did not answer.",
        PuntFull "punt_full" "The queue to the slow path is full, or the port had its share of it.",
        PuntRefused "punt_refused" "The slow path had no use for the packet.",
        RateLimited "rate_limited" "An error was due, but the port's error budget is spent.",
        PortDown "port_down" "The port to leave by is gone or down.",
        TxFull "tx_full" "The transmit ring of the port to leave by is full.",
        HandoffFull "handoff_full" "The ring to the worker that owns the port is full.",
        NoHeadroom "no_headroom" "No room in the frame for the outer headers.",
        HostPortLoop "host_port_loop" "The kernel sent to the host port what belongs to the host itself.",
        NotReady "not_ready" "No complete state has arrived yet.",
        Shortcut "shortcut" "The packet was on its way past the workers when its connection left the shortcut.",
        TcpWindow "tcp_window" "A segment of a translated TCP connection that its sender cannot have sent: outside the window.",
        TcpReset "tcp_reset" "A TCP reset from outside its connection's window: nobody believes it.",
        PacketRate "packet_rate" "More packets a second than a pod's limit allows.",
        Bandwidth "bandwidth" "More bits a second than a pod's limit allows: too many wait already.",
        ConnectionLimit "connection_limit" "A pod has as many TCP connections as its limit allows: another one was refused.",
        TcpFlags "tcp_flags" "A TCP segment with flags that no end of a connection sends: none, or those of a beginning and an end at once.",
    }
}

reasons! {
    /// Why a packet went to the slow path.
    PuntReason {
        Arp "arp" "An ARP packet of a pod.",
        Ndisc "ndisc" "A neighbour or router discovery packet of a pod.",
        TtlExpired "ttl_expired" "The TTL or hop limit ran out: ICMP time exceeded is due.",
        TooBig "too_big" "Larger than the path and not to be fragmented: ICMP too big is due.",
        Fragment "fragment" "Larger than the path: it is to be fragmented.",
        Reassemble "reassemble" "A fragment: its datagram is needed whole.",
        Unreachable "unreachable" "No route or no host: ICMP unreachable is due.",
        Reject "reject" "The service has no backend there: TCP RST or ICMP port unreachable is due.",
        ConnectionLimit "connection_limit" "A pod has as many TCP connections as its limit allows: a TCP RST is due.",
        Neighbour "neighbour" "The next hop's Ethernet address is not known yet.",
        IcmpError "icmp_error" "An ICMP error about a connection of ours: its quotation is to be translated.",
        HostFlow "host_flow" "A connection from outside to a service backend in the host network: its answers must be steered here.",
        Portless "portless" "The first packet of a masqueraded connection without ports: its answers must be steered here.",
        Dhcp "dhcp" "A router solicitation or DHCP packet of a pod.",
        Dns "dns" "A pod's question to a trusted name server, or the answer: policies name domains.",
    }
}

reasons! {
    /// What reading along found in a message between a pod and a name server.
    DnsReading {
        Question "question" "A pod's question.",
        Answer "answer" "An answer with addresses, to what the pod asked: they were learned.",
        Other "other" "Nothing that policy needs: other types of records, errors, a part of a message.",
        Unasked "unasked" "An answer to what the pod did not ask: it went on and was not believed.",
        Malformed "malformed" "Not a message, or of a stream whose beginning was not seen: it went on.",
        Crowded "crowded" "An answer that was not learned and went on: too many were under way.",
        Unheld "unheld" "An answer that went on at once: too many were being held back.",
        Late "late" "An answer that was held back for as long as may be, and went on.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_indexes_lead_back() {
        let names: HashSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(DropReason::from_index(i as u8), Some(*reason));
        }
        let names: HashSet<_> = PuntReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), PuntReason::COUNT);
        assert_eq!(PuntReason::from_index(PuntReason::COUNT as u8), None);
    }
}
