//! The kernel's preferred busy polling of an uplink, where the configuration asks for it.
//!
//! Its sockets ask when they are bound. As soon as one of them knows its NAPI, whose turn comes in the
//! worker's calls from then on, the interface's interrupts are deferred: a NAPI that a call has run
//! stays masked until the next call, or until a timer of the kernel's says that none has come, as when
//! the worker sleeps. Not before: without a worker that polls, each packet would wait for that timer.
//!
//! The trunk and pods' ports are veths, which have no interrupt to save: there the sender runs the NAPI
//! at once, and a worker that did it instead answered later (half as many requests a second, Linux 6.1).

use std::path::PathBuf;
use std::{fs, io};

use margay_xsk::{Napi, Socket};
use tracing::{info, warn};

use crate::tuning::Setting;

/// The timer in nanoseconds: 200 µs, as the kernel's own examples have it, and one more, by which a
/// daemon that comes after a crash knows that it is not the administrator's.
const TIMER: &str = "200001";
/// Turns of a NAPI that finds nothing before its interrupt is unmasked.
const TURNS: &str = "2";
/// What both are without a word of the administrator's.
const NONE: &str = "0";

/// An uplink whose queues are to be polled by the workers.
#[derive(Clone, Debug)]
pub(crate) struct BusyPoll {
    interface: String,
    ifindex: u32,
    napis: Vec<Napi>,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// The kernel does not do it.
    Refused(String),
    /// No NAPI is known by now.
    Asked,
    /// Workers poll, and interrupts are deferred or, for this reason, not.
    On(Result<(), String>),
}

// === impl BusyPoll ===

impl BusyPoll {
    pub(crate) fn new(interface: &str, ifindex: u32) -> Self {
        Self { interface: interface.into(), ifindex, napis: Vec::new(), state: State::Asked }
    }

    /// Asks for a queue, before its socket is a worker's.
    pub(crate) fn ask(&mut self, socket: &mut Socket) {
        if let State::Refused(_) = self.state {
            return;
        }
        match socket.prefer_busy_poll() {
            Ok(napi) => self.napis.push(napi),
            Err(error) => {
                let interface = &self.interface;
                warn!(interface, %error, "the kernel refuses preferred busy polling");
                self.state = State::Refused(error.to_string());
            }
        }
    }

    /// Defers interrupts once a NAPI is known; to be called once a second. Whether it did.
    pub(crate) fn follow(&mut self) -> bool {
        let known = self.napis.iter().any(Napi::is_known);
        if !known || !matches!(self.state, State::Asked) {
            return false;
        }
        let deferred = self.defer().map_err(|error| error.to_string());
        info!(interface = self.interface, ?deferred, "workers run the interface's NAPI");
        self.state = State::On(deferred);
        true
    }

    /// Puts the interface's interrupts back as they were; also those of a predecessor's doing.
    pub(crate) fn put_back(interface: &str, ifindex: u32) {
        let this = Self::new(interface, ifindex);
        let ours = this.read("gro_flush_timeout").is_ok_and(|timer| timer == TIMER);
        if ours && let Err(error) = this.write(NONE, NONE) {
            warn!(interface, %error, "interrupts stay deferred");
        }
    }

    /// What came of it, for people.
    pub(crate) fn setting(&self) -> Setting {
        let interface = &self.interface;
        let (who, reason) = match &self.state {
            State::On(Ok(())) => {
                ("workers", "`prefer-busy-poll`: interrupts wait meanwhile".into())
            }
            State::On(Err(why)) => ("workers", format!("its interrupts are not deferred: {why}")),
            State::Refused(why) => ("kernel", format!("no preferred busy polling: {why}")),
            State::Asked => {
                let why = "no socket knows it: the driver does not name the NAPI of a queue, or \
                           no packet has come yet (Linux before 6.13)";
                ("kernel", why.into())
            }
        };
        Setting::new(format!("NAPI of {interface}"), who.into(), reason)
    }

    /// Leaves alone what the administrator has set.
    fn defer(&self) -> io::Result<()> {
        let (timer, turns) = (self.read("gro_flush_timeout")?, self.read("napi_defer_hard_irqs")?);
        if timer != TIMER && (timer != NONE || turns != NONE) {
            return Ok(());
        }
        self.write(TURNS, TIMER)
    }

    fn write(&self, turns: &str, timer: &str) -> io::Result<()> {
        fs::write(self.file("napi_defer_hard_irqs")?, turns)?;
        fs::write(self.file("gro_flush_timeout")?, timer)
    }

    fn read(&self, name: &str) -> io::Result<String> {
        Ok(fs::read_to_string(self.file(name)?)?.trim_end().to_owned())
    }

    /// A file of the interface's; an error where `/sys` is another network namespace's.
    fn file(&self, name: &str) -> io::Result<PathBuf> {
        let folder = PathBuf::from("/sys/class/net").join(&self.interface);
        let index = fs::read_to_string(folder.join("ifindex"))?;
        match index.trim_end().parse() == Ok(self.ifindex) {
            true => Ok(folder.join(name)),
            false => Err(io::Error::other("/sys is another network namespace's")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_of_another_network_namespace_are_left_alone() {
        let elsewhere = BusyPoll::new("lo", u32::MAX);
        let error = elsewhere.defer().unwrap_err().to_string();
        assert!(error.contains("another network namespace"), "{error}");
        let setting = BusyPoll { state: State::On(Err(error)), ..elsewhere }.setting();
        assert_eq!((&*setting.name, &*setting.value), ("NAPI of lo", "workers"));
        assert!(setting.reason.contains("not deferred: /sys"), "{}", setting.reason);
    }

    #[test]
    fn a_refusal_is_told_with_the_kernels_words() {
        let mut interface = BusyPoll::new("lo", 1);
        assert_eq!(interface.setting().value, "kernel");
        interface.state = State::Refused("Protocol not available".into());
        assert!(interface.setting().reason.ends_with(": Protocol not available"));
        assert!(!interface.follow(), "nothing more comes of it");
    }
}
