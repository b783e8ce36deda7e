//! Who may talk to whom: every pair of pods and host endpoints and every port, without asking about
//! each.
//!
//! Endpoints about which no policy can tell a difference are one class. Two pairs of classes whose
//! relevant rules are the same have one outcome, for which the classifier of live traffic is asked:
//! once for each range of ports that those rules tell apart.
//!
//! - [`atlas`]: which sets and networks of rules an address is in;
//! - [`list`]: the rules of endpoints, and what they say about the addresses of a pair;
//! - [`failsafe`]: the ports of host endpoints about which no rule is asked;
//! - [`class`]: endpoints that are alike;
//! - [`probe`]: the ports that rules tell apart, and their words;
//! - [`ask`]: who is asked; [`outcome`]: what becomes of the traffic of a pair;
//! - [`service`]: services as receivers;
//! - [`survey`]: all of it, for one cluster or for two that are compared;
//! - [`group`]: classes with the same outcomes, and what people call them.

mod atlas;
mod list;
mod failsafe;
pub(crate) mod class;
pub(crate) mod probe;
mod ask;
pub(crate) mod outcome;
pub(crate) mod service;
pub(crate) mod survey;
pub(crate) mod group;

#[cfg(test)]
mod tests;
