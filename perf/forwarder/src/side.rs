//! One of the two interfaces: its sockets and the program that feeds them.

use anyhow::Context;
use margay_xsk::{
    Binder, Fallback, Preference, Socket, SocketOptions,
    program::{Attached, PortProgram},
};
use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};

/// An interface whose every frame comes to the forwarder. The program is taken off on drop.
pub(crate) struct Side {
    pub(crate) sockets: Vec<Socket>,
    pub(crate) name: String,
    /// Why the sockets are not zero-copy, if they are not.
    pub(crate) fallback: Option<Fallback>,
    pub(crate) attached: Attached,
    program: PortProgram,
    ifindex: u32,
}

// === impl Side ===

impl Side {
    /// Binds the first `queues` queues of the interface and attaches the program.
    pub(crate) fn open(binder: &Binder, name: &str, queues: u32) -> anyhow::Result<Self> {
        let ifindex = index(name)?;
        let program = PortProgram::load(false)?;
        let mut sockets = Vec::new();
        let mut fallback = None;
        for queue in 0..queues {
            let options = SocketOptions::default();
            let bound = binder.bind(name, queue, Preference::Auto, options)?;
            program.register_socket(&bound.socket)?;
            sockets.push(bound.socket);
            fallback = fallback.or(bound.fallback);
        }
        let attached = program.attach(ifindex)?;
        Ok(Self { sockets, name: name.to_owned(), fallback, attached, program, ifindex })
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Err(error) = self.program.detach(self.ifindex) {
            eprintln!("{}: {error}", self.name);
        }
    }
}

/// The index of an interface.
pub(crate) fn index(name: &str) -> anyhow::Result<u32> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    name_to_index(&any, name).with_context(|| format!("no interface {name}"))
}
