//! Programs of packets through engine and slow path of a whole node.
//!
//! An input is a list of records of [`RECORD`] bytes, each a step: a packet of some conversation, as
//! it should be or harmed; an answer to what left the node; an error about it; a datagram in pieces;
//! time that passes; another state of the control plane. In the order of use:
//! - [`scene`]: the states of the node, and the addresses that mean something in them;
//! - [`program`]: from records to steps;
//! - [`node`]: the steps taken, with the slow path wired as the daemon wires it;
//! - [`seen`]: a frame as etherparse reads it;
//! - [`watch`]: what holds of every frame that leaves, and of the account at the end.

mod scene;
mod program;
mod node;
mod seen;
mod watch;

pub use program::RECORD;

/// Runs a program.
pub fn run(bytes: &[u8]) {
    node::Node::with_scene(|mut node| {
        let mut steps = program::Steps::new(bytes);
        while let Some(step) = steps.next(node.left()) {
            node.take(step);
        }
        node.end();
    });
}

/// The one's complement sum of 16-bit words.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let word = |w: &[u8]| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
