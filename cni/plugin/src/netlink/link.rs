//! Links: the veth pair and what is known of it.

use std::io;
use std::os::fd::RawFd;

use margay_model::Mac;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};

use super::socket::RouteSocket;

/// A link as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: String,
    pub(crate) mac: Option<Mac>,
    pub(crate) up: bool,
    /// Up, and its state settled.
    pub(crate) running: bool,
    /// Index of a veth's other end, in the other end's namespace.
    pub(crate) peer: Option<u32>,
}

/// A veth pair to be made: one end here, the other in a namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VethPair<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) host_mac: Mac,
    pub(crate) pod_name: &'a str,
    pub(crate) pod_mac: Mac,
    pub(crate) pod_netns: RawFd,
    pub(crate) mtu: u32,
    /// Queues of each end.
    pub(crate) queues: u32,
}

// === impl Link ===

impl Link {
    fn parse(message: Message) -> Option<Self> {
        let Message::NewLink(message) = message else { return None };
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            alias: String::new(),
            mac: None,
            up: message.header.flags.contains(LinkFlags::Up),
            running: message.header.flags.contains(LinkFlags::Running),
            peer: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = alias,
                LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
                LinkAttribute::Link(peer) => link.peer = Some(peer),
                _ => {}
            }
        }
        Some(link)
    }

    /// Whether `self`, in one namespace, and `other`, in another, are the ends of one veth pair.
    pub(crate) fn is_peer_of(&self, other: &Self) -> bool {
        self.peer == Some(other.index) && other.peer == Some(self.index)
    }
}

// === impl VethPair ===

impl VethPair<'_> {
    /// The message that makes the pair at once, both ends down.
    fn message(&self) -> LinkMessage {
        let mut peer = self.end(self.pod_name, self.pod_mac);
        peer.attributes.push(LinkAttribute::NetNsFd(self.pod_netns));
        let mut host = self.end(self.host_name, self.host_mac);
        host.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        host
    }

    fn end(&self, name: &str, mac: Mac) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::Mtu(self.mtu),
            LinkAttribute::NumTxQueues(self.queues),
            LinkAttribute::NumRxQueues(self.queues),
        ];
        message
    }
}

// === impl RouteSocket ===

impl RouteSocket {
    /// Makes the pair.
    ///
    /// # Errors
    /// EEXIST when either name is taken.
    pub(crate) fn create_veth(&mut self, pair: &VethPair<'_>) -> io::Result<()> {
        self.request(Message::NewLink(pair.message()), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// The link called `name`, if there is one.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]),
        ];
        match self.collect(Message::GetLink(message), 0, Link::parse) {
            Ok(links) => Ok(links.into_iter().next()),
            Err(error) if error.raw_os_error() == Some(no_device()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every link of the namespace.
    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
        self.collect(Message::GetLink(message), NLM_F_DUMP, Link::parse)
    }

    /// Gives the link an alias, which `ip link` shows.
    pub(crate) fn set_alias(&mut self, index: u32, alias: &str) -> io::Result<()> {
        let mut message = numbered(index);
        message.attributes = vec![LinkAttribute::IfAlias(alias.to_owned())];
        self.request(Message::SetLink(message), 0)
    }

    /// Brings the link up.
    pub(crate) fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = numbered(index);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.request(Message::SetLink(message), 0)
    }

    /// Deletes the link, and with it the other end of a veth pair; one that is gone is success.
    pub(crate) fn delete_link(&mut self, index: u32) -> io::Result<()> {
        match self.request(Message::DelLink(numbered(index)), 0) {
            Err(error) if error.raw_os_error() == Some(no_device()) => Ok(()),
            other => other,
        }
    }
}

fn numbered(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn no_device() -> i32 {
    rustix::io::Errno::NODEV.raw_os_error()
}
