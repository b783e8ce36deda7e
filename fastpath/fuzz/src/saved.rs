//! What arrives in protobuf: the agent's messages, and the state that a daemon finds on disk.

use margay_model::{State, Update};
use margay_protocol::{AgentMessage, decode_state, encode_state, proto};
use prost::Message;

/// A message of the agent's. What is understood says the same once it is written again.
pub fn updates(bytes: &[u8]) {
    let Ok(message) = proto::FromAgent::decode(bytes) else { return };
    let Ok(message) = AgentMessage::try_from(message) else { return };
    let again = AgentMessage::try_from(proto::FromAgent::from(&message));
    assert_eq!(again.as_ref(), Ok(&message), "a message of ours is not understood");
    if let AgentMessage::Update(update) = message {
        let mut state = State::default();
        state.apply(update);
        survives(&state);
    }
}

/// The state file. Where it is taken, it is the same after it was saved again.
pub fn state(bytes: &[u8]) {
    if let Ok(state) = decode_state(bytes) {
        survives(&state);
    }
    // The header's length is hard to guess: the rest as a whole file of updates.
    let body = bytes.get(20..).unwrap_or_default();
    let head = [&b"MARGAYST"[..], &1u32.to_be_bytes(), &(body.len() as u64).to_be_bytes(), body];
    if let Ok(state) = decode_state(&head.concat()) {
        survives(&state);
    }
}

fn survives(state: &State) {
    let again = decode_state(&encode_state(state)).expect("what we wrote");
    assert_eq!(again.diff(state), Vec::<Update>::new(), "a state that was saved is another");
}
