//! Every value of the model survives its way through the protocol's bytes, and no bytes whatsoever
//! make the decoder panic.

mod arbitrary;

use margay_model::{State, Update};
use margay_protocol::{AgentMessage, decode_state, encode_state, proto};
use proptest::prelude::*;
use prost::Message;

proptest! {
    #[test]
    fn every_update_survives_the_wire(update in arbitrary::update()) {
        let bytes = proto::Update::from(&update).encode_to_vec();
        let message = proto::Update::decode(&*bytes).unwrap();
        prop_assert_eq!(Update::try_from(message), Ok(update));
    }

    #[test]
    fn every_message_of_an_agent_survives_the_wire(message in arbitrary::agent_message()) {
        let bytes = proto::FromAgent::from(&message).encode_to_vec();
        let decoded = proto::FromAgent::decode(&*bytes).unwrap();
        prop_assert_eq!(AgentMessage::try_from(decoded), Ok(message));
    }

    #[test]
    fn every_state_survives_being_saved(updates in prop::collection::vec(arbitrary::update(), 0..20)) {
        let mut state = State::default();
        updates.into_iter().for_each(|u| state.apply(u));
        let saved = encode_state(&state);
        prop_assert_eq!(decode_state(&saved).unwrap(), state);
    }

    #[test]
    fn any_part_of_a_saved_state_is_an_error(
        updates in prop::collection::vec(arbitrary::update(), 1..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut state = State::default();
        updates.into_iter().for_each(|u| state.apply(u));
        let saved = encode_state(&state);
        prop_assert!(decode_state(&saved[..cut.index(saved.len())]).is_err());
    }

    #[test]
    fn flipped_bits_make_a_value_or_an_error_but_no_panic(
        update in arbitrary::update(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..8),
    ) {
        let mut bytes = proto::Update::from(&update).encode_to_vec();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if let Ok(message) = proto::Update::decode(&*bytes) {
            // Whatever the decoder takes for a value must itself survive.
            if let Ok(value) = Update::try_from(message) {
                prop_assert_eq!(Update::try_from(proto::Update::from(&value)), Ok(value));
            }
        }
    }
}
